"""`phaul serve` as a process, from the token to the migration's connection, and what it refuses."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from phaul.cli.main import main
from phaul.cli.serve import require_trust, seconds
from phaul.errors import NotTrusted, UsageError
from phaul.storage.keyring import Keyring
from phaul.storage.state_dir import StateDir
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import TlsTarget

pytestmark = pytest.mark.usefixtures("no_leaks")
LIMIT = 60.0


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process's state directory."""
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "ours"))
    return tmp_path / "ours"


@contextmanager
def serving(folder: Path, *arguments: str) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """A `phaul serve` that is ready, with a socket as systemd passes it; and its port."""
    notified = folder / "notify"
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PHAUL_STATE": str(folder / "theirs"),
        "NOTIFY_SOCKET": str(notified),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "phaul",
        "PATH": os.environ["PATH"],
    }
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(str(notified))
        told.settimeout(LIMIT)
        script = f'export LISTEN_PID=$$; exec "$@" 3<&{listener.fileno()}'
        command = [sys.executable, "-P", "-m", "phaul", "serve", *arguments]
        with subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", *command],
            pass_fds=[listener.fileno()],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert told.recv(100) == b"READY=1"
                yield process, listener.getsockname()[1]
            finally:
                process.terminate()


async def connect(target: str) -> None:
    keyring = Keyring()
    known = keyring.resolve(TlsTarget.parse(target))
    async with TlsSource(known, keyring.identity(), connect_timeout=LIMIT):
        pass


def test_from_the_token_to_a_migration_s_connection(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, "--token", "--expires", "5m", "--once") as (process, port):
        assert process.stdout
        token = process.stdout.readline().strip()
        assert Invitation.parse(token).address.port == port
        assert main(["hosts", "add", "host2", *token.split("-")]) == 0
        assert f"host2 is known now, at 127.0.0.1:{port}" in capsys.readouterr().out
        # Used up, and still running.
        assert main(["hosts", "add", "host3", token]) == 4
        assert "was used" in capsys.readouterr().err
        assert process.poll() is None
        anyio.run(connect, f"phaul://127.0.0.1:{port}")
        assert process.wait(LIMIT) == 0
    assert main(["hosts"]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith(f"host2  127.0.0.1:{port}  ")
    theirs = Keyring(StateDir.open(tmp_path / "theirs"))
    assert listed.split()[2] == theirs.identity().certificate.fingerprint
    assert list(theirs.trusted().values()) == [Keyring().identity().certificate]


def test_the_end_withdraws_the_token(tmp_path: Path) -> None:
    with serving(tmp_path, "--token") as (process, _):
        theirs = Keyring(StateDir.open(tmp_path / "theirs"))
        assert theirs.joinable()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
        assert not theirs.joinable()
        assert process.stderr
        said = process.stderr.read()
        assert "phaul hosts add" in said
        assert "listening at 127.0.0.1" in said
        assert process.stdout
        assert len(process.stdout.read().splitlines()) == 1


def test_one_who_has_not_joined(state: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as (process, port):
        theirs = Keyring(StateDir.open(tmp_path / "theirs"))
        ours = Keyring()
        token = Invitation.to(
            theirs.identity().certificate, b"0" * 16, TlsTarget.parse(f"phaul://h:{port}").address
        )
        assert main(["hosts", "add", "--address", "127.0.0.1", "x", str(token)]) == 4
        assert ours.hosts() == {}
        theirs_known = ours.path / "hosts"
        theirs_known.mkdir(mode=0o700)
        (theirs_known / "x.pem").write_text(
            f"phaul-address: 127.0.0.1:{port}\n{theirs.identity().certificate.pem}"
        )
        with pytest.raises(NotTrusted):
            anyio.run(connect, "phaul://x")
        assert process.poll() is None


@pytest.mark.parametrize("listen", ["0.0.0.0:17433", "[::]:17433"])
def test_an_open_address_without_trust_is_refused(
    state: Path, listen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--listen", listen]) == 2
    said = capsys.readouterr().err
    assert "no host is trusted yet" in said
    assert "phaul serve --token" in said


def test_what_may_listen_where(state: Path) -> None:
    keyring = Keyring()
    with (
        socket.create_server(("127.0.0.1", 0)) as near,
        socket.create_server(("0.0.0.0", 0)) as far,
    ):
        require_trust([near], keyring, token=False)
        require_trust([near, far], keyring, token=True)
        with pytest.raises(UsageError):
            require_trust([near, far], keyring, token=False)
        keyring.trust("host1", keyring.identity().certificate)
        require_trust([far], keyring, token=False)


@pytest.mark.parametrize(
    "listen", ["host2:1", "1.2.3.4.5:1", "127.0.0.1:x", "127.0.0.1:0", "::1:1"]
)
def test_addresses_that_cannot_be_meant(
    state: Path, listen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--listen", listen]) == 2
    assert "write ADDRESS:PORT" in capsys.readouterr().err.replace("HOST:PORT", "ADDRESS:PORT")


def test_a_port_that_is_taken(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["serve", "--listen", where]) == 3
        assert f"cannot listen at {where}" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200)])
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "m", "1d", "-1", "1.5m", "9999999", "٣", "1\n"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)
