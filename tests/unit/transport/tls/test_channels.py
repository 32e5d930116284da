"""Both channels between real sockets: what works, and each way in which it may not."""

import hashlib
import os
import socket
import ssl
import threading
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from phaul import errors as e
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd
from phaul.transport.caller import Caller
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import KnownHost
from tests.unit.protocol.samples import HELLO, PREPARE
from tests.unit.transport.fake_agent import EchoAgent
from tests.unit.transport.tls.conftest import LIMIT, Hosts, handshake, keyring, tls12
from tests.unit.transport.tls.signing import signed_by

pytestmark = pytest.mark.anyio
MANY = 64 << 20


async def greet(source: TlsSource) -> tuple[Caller, m.Welcome]:
    caller = Caller(source.control, "host2")
    return caller, await caller.hello(HELLO, LIMIT)


async def test_a_conversation_and_its_memory(hosts: Hosts, tmp_path: Path) -> None:
    hosts.trust()
    server = hosts.serve()
    image = tmp_path / "core-1.img"
    image.write_bytes(os.urandom(5_000_000))
    async with hosts.source(server) as source:
        caller, welcome = await greet(source)
        with await source.open_memory(welcome.token) as memory:
            assert memory.family == socket.AF_UNIX
            assert memory.getblocking()
            await caller.call(PREPARE, LIMIT)
            memory.sendall(b"pages")
            await caller.call(m.StartRound(number=0), LIMIT)
            memory.settimeout(LIMIT)
            assert memory.recv(100) == b"PAGES"
            await caller.call(m.StopRound(number=0), LIMIT)
            assert source.memory_sent == 5
            await caller.send_image(image)
            assert await caller.restore(LIMIT) == 4242
            await caller.call(m.Commit(), LIMIT)
            assert await caller.call(m.Bye(), LIMIT) == m.Done()
            # The agent is gone, so this channel ends.
            assert memory.recv(100) == b""
        assert source.memory_fault == ""
    assert {(out.became, out.reported) for out in server.wait()} == {(0, b"c"), (0, b"m")}


class Mirror(EchoAgent):
    """Takes MANY bytes of memory, and then sends them back."""

    digest = ""

    def _echo(self, sock: socket.socket) -> None:
        data = take(sock, MANY)
        self.digest = hashlib.sha256(data).hexdigest()
        sock.sendall(data)


def take(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        assert got
        view = view[got:]
    return data


async def test_64_mib_each_way(hosts: Hosts) -> None:
    hosts.trust()
    mirrors: list[Mirror] = []

    async def run_agent(end: AgentEnd) -> int:
        mirrors.append(Mirror(end))
        async with end:
            await serve(end.control, mirrors[0], Conversation(), "host2")
        return 0

    data = os.urandom(1 << 20) * (MANY >> 20)
    digest = hashlib.sha256(data).hexdigest()
    async with hosts.source(hosts.serve(run_agent=run_agent)) as source:
        caller, welcome = await greet(source)
        with await source.open_memory(welcome.token) as memory:
            memory.settimeout(LIMIT)
            await caller.call(PREPARE, LIMIT)
            sender = threading.Thread(target=memory.sendall, args=(data,))
            sender.start()
            back: list[bytearray] = []
            taker = threading.Thread(target=lambda: back.append(take(memory, MANY)))
            taker.start()
            await caller.call(m.StartRound(number=0), LIMIT)
            await anyio.to_thread.run_sync(sender.join)
            await anyio.to_thread.run_sync(taker.join)
            assert mirrors[0].digest == digest
            assert hashlib.sha256(back[0]).hexdigest() == digest
            assert source.memory_sent == MANY
            await caller.call(m.StopRound(number=0), LIMIT)
            await caller.call(m.Discard(), LIMIT)
            await caller.call(m.Bye(), LIMIT)


async def test_a_client_that_is_not_trusted(hosts: Hosts) -> None:
    server = hosts.serve()
    with pytest.raises(e.NotTrusted, match="does not trust") as caught:
        async with hosts.source(server):
            pass
    assert "phaul serve --token" in caught.value.remedy
    (out,) = server.wait()
    assert isinstance(out.became, e.PeerError)
    assert out.reported == b""


async def test_no_longer_trusted(hosts: Hosts) -> None:
    hosts.trust()
    server = hosts.serve()
    async with hosts.source(server) as source:
        caller, _ = await greet(source)
        hosts.theirs.distrust("host1")
        await caller.call(m.Bye(), LIMIT)
    with pytest.raises(e.NotTrusted):
        await hosts.source(server).__aenter__()


async def test_another_server_than_the_pinned_one(hosts: Hosts, tmp_path: Path) -> None:
    hosts.trust()
    server = hosts.serve()
    pinned = keyring(tmp_path / "before").identity().certificate
    known = KnownHost("host2", server.address, pinned)
    with pytest.raises(e.CertificateChanged, match="another one") as caught:
        async with TlsSource(known, hosts.ours.identity()):
            pass
    assert "phaul hosts remove" in caught.value.remedy
    assert server.wait()[0].reported == b""


async def test_what_a_trusted_certificate_has_signed_is_not_trusted(
    hosts: Hosts, tmp_path: Path
) -> None:
    hosts.trust()
    forged = signed_by(hosts.ours.identity(), tmp_path / "forged")
    server = hosts.serve()
    with pytest.raises(e.NotTrusted):
        await TlsSource(server.known(), forged).__aenter__()
    assert isinstance(server.wait()[0].became, e.PeerError)


async def test_what_the_pinned_server_has_signed_is_another(hosts: Hosts, tmp_path: Path) -> None:
    hosts.trust()
    forged = signed_by(hosts.theirs.identity(), tmp_path / "forged")
    pinned = hosts.theirs.identity().certificate
    server = hosts.serve()
    hosts.theirs.identity = lambda: forged  # type: ignore[method-assign]
    with pytest.raises(e.CertificateChanged):
        await TlsSource(
            KnownHost("host2", server.address, pinned), hosts.ours.identity()
        ).__aenter__()
    assert isinstance(server.wait()[0].became, e.PeerError)


@pytest.mark.parametrize("token", [False, True])
async def test_no_certificate(hosts: Hosts, token: bool) -> None:
    hosts.trust()
    if token:
        hosts.theirs.admission.issue(60)
    server = hosts.serve()

    def talk() -> bytes:
        with handshake(server, None) as sock:
            sock.sendall(b"phaul control 1\n")
            return sock.recv(100)

    if token:
        assert await anyio.to_thread.run_sync(talk) == b"phaul no not-trusted\n"
    else:
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await anyio.to_thread.run_sync(talk)
    assert isinstance(server.wait()[0].became, e.PeerError)


async def test_a_client_of_tls_1_2(hosts: Hosts) -> None:
    hosts.trust()
    server = hosts.serve()
    context = tls12(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await anyio.to_thread.run_sync(partial(handshake, server, None, context))
    assert isinstance(server.wait()[0].became, e.PeerError)


@pytest.mark.parametrize("after", ["connect", "handshake", "half a line"])
async def test_a_client_that_says_nothing(hosts: Hosts, after: str) -> None:
    hosts.trust()
    server = hosts.serve(limit=1.0)

    def talk() -> bytes:
        if after == "connect":
            where = (server.address.host, server.address.port)
            with socket.create_connection(where, LIMIT) as sock:
                return sock.recv(100)
        with handshake(server, hosts.ours.identity()) as sock:
            if after != "handshake":
                sock.sendall(b"phaul con")
            return sock.recv(100)

    assert await anyio.to_thread.run_sync(talk) == b""
    (out,) = server.wait()
    assert isinstance(out.became, e.PeerError)
    assert "within 1 s" in str(out.became)
    assert out.reported == b""


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"phaul control 2\n",
        b"phaul memory ../../etc/passwd\n",
        b"phaul memory " + b"A" * 32 + b"\n",
        b"phaul control 1\nphaul control 1\n",
        b"x" * 100_000,
        b"\0" * 64 + b"\n",
    ],
)
async def test_garbage(hosts: Hosts, line: bytes) -> None:
    hosts.trust()
    server = hosts.serve()

    def talk() -> bytes:
        with handshake(server, hosts.ours.identity()) as sock:
            sock.sendall(line)
            return sock.recv(100)

    assert await anyio.to_thread.run_sync(talk) == b"phaul no garbage\n"
    (out,) = server.wait()
    assert isinstance(out.became, e.ProtocolError)
    assert out.reported == b""


async def test_what_is_no_tls(hosts: Hosts) -> None:
    server = hosts.serve()

    def talk() -> None:
        where = (server.address.host, server.address.port)
        with socket.create_connection(where, LIMIT) as sock:
            sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 100)
            while sock.recv(1000):
                pass

    await anyio.to_thread.run_sync(talk)
    assert isinstance(server.wait()[0].became, e.PeerError)


@pytest.mark.parametrize("token", ["0" * 32, "f" * 32])
async def test_a_memory_channel_with_a_wrong_token(hosts: Hosts, token: str) -> None:
    hosts.trust()
    server = hosts.serve()
    async with hosts.source(server) as source:
        caller, welcome = await greet(source)
        with pytest.raises(e.ConnectFailed, match="no phaul agent with this memory channel"):
            await source.open_memory(token)
        (await source.open_memory(welcome.token)).close()
        await caller.call(m.Bye(), LIMIT)


async def test_a_token_that_is_none(hosts: Hosts) -> None:
    hosts.trust()
    server = hosts.serve()
    async with hosts.source(server) as source:
        for token in ("", "x", "A" * 32, "0" * 31, "0" * 31 + "\n"):
            with pytest.raises(e.UsageError, match="token"):
                await source.open_memory(token)


async def test_it_can_be_closed_again_and_unopened(hosts: Hosts) -> None:
    hosts.trust()
    source = hosts.source(hosts.serve())
    await source.aclose()
    async with source:
        _, welcome = await greet(source)
        memory = await source.open_memory(welcome.token)
        await source.aclose()
        memory.settimeout(LIMIT)
        assert memory.recv(1) == b""
        memory.close()
    with pytest.raises(e.UsageError, match="not open"):
        await source.open_memory("0" * 32)


async def test_an_agent_that_ends_under_way(hosts: Hosts) -> None:
    async def run_agent(end: AgentEnd) -> int:
        await end.control.receive(LIMIT)
        await end.aclose()
        return 7

    hosts.trust()
    server = hosts.serve(run_agent=run_agent)
    async with hosts.source(server) as source:
        caller = Caller(source.control, "host2")
        for _ in range(2):
            with pytest.raises(e.ConnectionLost, match="over there ended"):
                await caller.hello(HELLO, LIMIT)
    assert server.wait()[0].became == 7


async def test_a_connection_that_is_cut_off(hosts: Hosts) -> None:
    hosts.trust()
    server = hosts.serve()
    async with hosts.source(server) as source:
        caller, _ = await greet(source)
        assert source._stream is not None
        socket.socket.shutdown(source._stream._sock, socket.SHUT_RDWR)
        with pytest.raises(e.ConnectionLost, match="lost"):
            await caller.call(PREPARE, LIMIT)
    assert isinstance(server.wait()[0].became, e.ConnectionLost)


async def test_two_hosts_of_the_same_name(hosts: Hosts, tmp_path: Path) -> None:
    """Their certificates have the same subject, and both may come in."""
    second = keyring(tmp_path / "second")
    hosts.trust()
    assert hosts.theirs.trust("host1", second.identity().certificate) == "host1-2"
    server = hosts.serve()
    for identity in (hosts.ours.identity(), second.identity()):
        async with TlsSource(server.known(), identity) as source:
            caller, _ = await greet(source)
            await caller.call(m.Bye(), LIMIT)
