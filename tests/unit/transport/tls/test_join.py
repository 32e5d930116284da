"""Joining over real sockets: only with the token, only once, and only with the host it names."""

import socket
import threading
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from phaul import errors as e
from phaul.protocol.frames import Frame, Kind, pack
from phaul.protocol.join import Join, frame
from phaul.storage.admission import MOST_GUESSES
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.join import join
from phaul.transport.tls.target import Address
from tests.unit.transport.tls.conftest import LIMIT, Hosts, Server, handshake, keyring

pytestmark = pytest.mark.anyio


def invite(hosts: Hosts, server: Server, secret: bytes | None = None) -> Invitation:
    if secret is None:
        secret = hosts.theirs.admission.issue(60)
    return Invitation.to(hosts.theirs.identity().certificate, secret, server.address)


async def test_the_right_token(hosts: Hosts) -> None:
    server = hosts.serve()
    invitation = Invitation.parse(str(invite(hosts, server)))
    identity = hosts.ours.identity()
    certificate, name = await join(invitation, identity, "Host1.example.org")
    assert certificate == hosts.theirs.identity().certificate
    assert name == "host1.example.org"
    assert hosts.theirs.trusted() == {name: identity.certificate}
    assert not hosts.theirs.joinable()
    (out,) = server.wait()
    assert (out.became, out.reported) == (0, b"j")
    async with hosts.source(server):
        pass


async def test_a_token_is_good_once(hosts: Hosts, tmp_path: Path) -> None:
    server = hosts.serve()
    invitation = invite(hosts, server)
    await join(invitation, hosts.ours.identity(), "host1")
    thief = keyring(tmp_path / "thief")
    with pytest.raises(e.TokenExpired, match="was used") as caught:
        await join(invitation, thief.identity(), "host1")
    assert "phaul serve --token" in caught.value.remedy
    assert list(hosts.theirs.trusted()) == ["host1"]


async def test_no_token_was_ever_out(hosts: Hosts) -> None:
    server = hosts.serve()
    with pytest.raises(e.TokenExpired):
        await join(invite(hosts, server, b"0" * 16), hosts.ours.identity(), "host1")
    assert hosts.theirs.trusted() == {}


async def test_one_that_expires_during_the_handshake(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = hosts.serve()
    invitation = invite(hosts, server)
    monkeypatch.setattr("phaul.storage.admission.LONGEST_S", 1e-9)
    monkeypatch.setattr(hosts.theirs, "joinable", lambda: True)
    with pytest.raises(e.TokenExpired, match="expired"):
        await join(invitation, hosts.ours.identity(), "host1")
    assert hosts.theirs.trusted() == {}


async def test_wrong_tokens_make_it_void(hosts: Hosts) -> None:
    server = hosts.serve()
    right = invite(hosts, server)
    wrong = invite(hosts, server, b"\0" * 16)
    for _ in range(MOST_GUESSES):
        with pytest.raises(e.TokenWrong, match="wrong"):
            await join(wrong, hosts.ours.identity(), "host1")
    with pytest.raises(e.TokenExpired):
        await join(right, hosts.ours.identity(), "host1")
    assert hosts.theirs.trusted() == {}
    assert {out.reported for out in server.wait()} == {b""}


async def test_a_wrong_guess_leaves_the_right_one(hosts: Hosts) -> None:
    server = hosts.serve()
    right = invite(hosts, server)
    with pytest.raises(e.TokenWrong):
        await join(invite(hosts, server, b"\0" * 16), hosts.ours.identity(), "host1")
    assert (await join(right, hosts.ours.identity(), "host1"))[1] == "host1"


async def test_nothing_is_sent_to_another_host(hosts: Hosts, tmp_path: Path) -> None:
    server = hosts.serve()
    between = Server(keyring(tmp_path / "between"))
    between.door.admission.issue(60)
    try:
        with pytest.raises(e.CertificateChanged, match="not the one that the token names"):
            await join(
                invite(hosts, server), hosts.ours.identity(), "host1", address=between.address
            )
        (out,) = between.wait()
        assert "left before" in str(out.became)
    finally:
        between.close()
    assert hosts.theirs.joinable()


def speak(server: Server, *parts: bytes) -> bytes:
    """Greet as one who joins, and say this; returns what is answered."""
    with handshake(server, None) as sock:
        sock.sendall(b"phaul join 1\n")
        assert sock.recv(100) == b"phaul ok\n"
        for part in parts:
            sock.sendall(part)
        return sock.recv(4096)


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        pack(Frame(Kind.CONTROL, b"{}")),
        pack(Frame(Kind.CONTROL, b'{"is":"join"}')),
        pack(Frame(Kind.RAW, b"x")),
        pack(Frame(Kind.CONTROL, b"[" * 30_000)),
        frame(Join(secret="0" * 32, certificate="x", host="h")),
        frame(Join(secret="0" * 32, certificate=CERTIFICATE, host="h")),
        frame(Join(secret="0" * 32, certificate="x" * 9000, host="h")),
        frame(Join(secret="0" * 31, certificate=CERTIFICATE, host="h")),
        frame(Join(secret="0" * 32, certificate=CERTIFICATE, host="../h")),
    ],
)
async def test_garbage(hosts: Hosts, said: bytes) -> None:
    hosts.theirs.admission.issue(60)
    server = hosts.serve()
    answer = await anyio.to_thread.run_sync(partial(speak, server, said))
    assert b'"refused"' in answer
    (out,) = server.wait()
    assert isinstance(out.became, e.ProtocolError)
    assert out.reported == b""
    assert hosts.theirs.joinable()  # none of it was a guess
    assert hosts.theirs.trusted() == {}


async def test_too_much(hosts: Hosts) -> None:
    hosts.theirs.admission.issue(60)
    server = hosts.serve()
    large = pack(Frame(Kind.CONTROL, b"x" * 200_000))
    assert b'"refused"' in await anyio.to_thread.run_sync(partial(speak, server, large))
    assert "more than" in str(server.wait()[0].became)


async def test_one_that_falls_silent(hosts: Hosts) -> None:
    hosts.theirs.admission.issue(60)
    server = hosts.serve(limit=1.0)
    request = frame(Join(secret="0" * 32, certificate=CERTIFICATE, host="h"))
    assert await anyio.to_thread.run_sync(partial(speak, server, request[:-1])) == b""
    assert "within 1 s" in str(server.wait()[0].became)


async def test_a_certificate_is_not_enough_to_join(hosts: Hosts) -> None:
    hosts.trust()
    server = hosts.serve()

    def talk() -> bytes:
        with handshake(server, hosts.ours.identity()) as sock:
            sock.sendall(b"phaul join 1\n")
            return sock.recv(100)

    assert await anyio.to_thread.run_sync(talk) == b"phaul no not-trusted\n"


async def test_to_join_again_changes_nothing(hosts: Hosts) -> None:
    server = hosts.serve()
    for host in ("host1", "another"):
        invitation = invite(hosts, server)
        assert (await join(invitation, hosts.ours.identity(), host))[1] == "host1"
    assert list(hosts.theirs.trusted()) == ["host1"]


async def test_a_state_that_cannot_be_written(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = hosts.serve()

    def fails(*_: object) -> str:
        raise e.StateError("no room over there")

    monkeypatch.setattr(hosts.theirs, "trust", fails)
    with pytest.raises(e.JoinFailed, match="no room over there"):
        await join(invite(hosts, server), hosts.ours.identity(), "host1")


async def test_nobody_answers(hosts: Hosts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = Address("127.0.0.1", listener.getsockname()[1])
        invitation = Invitation(b"0" * 16, b"0" * 16, where)
        with pytest.raises(e.ConnectTimeout, match=r"within 0\.2 s"):
            await join(invitation, hosts.ours.identity(), "host1", timeout=0.2)


async def test_nobody_listens(hosts: Hosts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = Address("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(e.ConnectionRefused):
        await join(Invitation(b"0" * 16, b"0" * 16, where), hosts.ours.identity(), "host1")


async def test_the_secret_is_gone_before_the_answer(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = hosts.serve()
    invitation = invite(hosts, server)
    out = threading.Event()
    real = hosts.theirs.trust

    def trust(*arguments: object) -> str:
        if hosts.theirs.joinable():
            out.set()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hosts.theirs, "trust", trust)
    with anyio.fail_after(LIMIT):
        await join(invitation, hosts.ours.identity(), "host1")
    assert not out.is_set()
