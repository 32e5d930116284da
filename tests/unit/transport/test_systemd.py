"""What systemd passes, and what it is told."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from phaul.errors import UsageError
from phaul.transport.systemd import notify, passed_sockets

pytestmark = pytest.mark.usefixtures("no_leaks")


def variables(count: int, **more: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "OTHER": "x", **more}


def passed_on(*socks: socket.socket) -> int:
    """Put duplicates of the sockets at numbers that follow each other; returns the first."""
    first = 200
    for number, sock in enumerate(socks, first):
        os.dup2(sock.fileno(), number)
    return first


def test_the_sockets() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=10) as two,
    ):
        environment = variables(2, LISTEN_FDNAMES="phaul:other")
        found = passed_sockets(environment, passed_on(one, two))
        assert [passed.name for passed in found] == ["phaul", "other"]
        for passed, sock in zip(found, (one, two), strict=True):
            assert passed.sock.getsockname() == sock.getsockname()
            assert not passed.sock.get_inheritable()
            assert not passed.sock.getblocking()
            passed.sock.close()
        assert environment == {"OTHER": "x"}


def test_without_names() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        (found,) = passed_sockets(variables(1), passed_on(one))
        assert found.name == ""
        found.sock.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
    ],
)
def test_nothing_was_passed_to_this_process(environment: dict[str, str]) -> None:
    assert passed_sockets(environment) == []
    assert environment == {}


def test_what_cannot_be_listened_at() -> None:
    near, far = socket.socketpair()
    with near, far, socket.socket() as unbound, socket.create_server(("127.0.0.1", 0)) as good:
        for bad in (near, unbound):
            with pytest.raises(UsageError, match="not a listening TCP socket"):
                passed_sockets(variables(2), passed_on(good, bad))
    with pytest.raises(UsageError, match="not a socket"):
        passed_sockets(variables(1), 300)
    with pytest.raises(UsageError, match="at most"):
        passed_sockets(variables(100_000))


@pytest.mark.parametrize("abstract", [False, True])
def test_readiness(tmp_path: Path, abstract: bool) -> None:
    name = f"@phaul-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if abstract else name)
        assert notify("READY=1", {"NOTIFY_SOCKET": name})
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "relative", "/nonexistent/socket", "vsock:2:1"])
def test_nobody_to_tell(name: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": name})


def test_a_process_of_its_own() -> None:
    """As systemd does it: descriptor 3, the PID known only to the process itself."""
    code = (
        "import os; from phaul.transport.systemd import passed_sockets; "
        "os.environ['LISTEN_PID'] = str(os.getpid()); "
        "print(passed_sockets(os.environ)[0].sock.getsockname()[1])"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        script = f'exec "$0" -c "$1" 3<&{sock.fileno()}'
        done = subprocess.run(
            ["/bin/bash", "-c", script, sys.executable, code],
            pass_fds=[sock.fileno()],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == sock.getsockname()[1]
