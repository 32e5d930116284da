"""The processes under test, as their lane sees them: who they are, and what they say."""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.faults.wire import pair, take, tell
from tests.hosts.machine import GROUP, Host

__all__ = ["Child", "Zygote", "children", "gone", "signal_outer"]

_ENVIRONMENT: Final = {
    "PYTHONPATH": "/phaul/src:/phaul:/site",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONWARNINGS": "error",
}
_START_S: Final = 60.0


class Child:
    """A process under test; `pid` is as this lane's host counts, `inner` as its own does."""

    def __init__(self, role: str, inner: int, handle: int, leash: socket.socket) -> None:
        self.role = role
        self.inner = inner
        self.leash = leash
        self._handle = handle
        text = Path(f"/proc/self/fdinfo/{handle}").read_text()
        self.pid = int(dict(line.split(":", 1) for line in text.splitlines())["Pid"])
        self.status: int | None = None
        self.killed = False
        self.log = Path(os.devnull)
        self.token = ""
        self.door: socket.socket | None = None
        self.criu: dict[str, int] = {}
        """The CRIUs that it has asked for something, by what they do."""

    def send(self, number: int) -> None:
        """Signal it, if it is still there."""
        if number == signal.SIGKILL:
            self.killed = True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def find(self, inner: int) -> int | None:
        """The PID here of a process that counts as `inner` there: below it, or nobody's child."""
        with suppress(OSError):
            space = os.readlink(f"/proc/{self.pid}/ns/pid")  # noqa: PTH115
            for pid in (*_below(self.pid), *_all()):
                if _inner(pid) == inner and os.readlink(f"/proc/{pid}/ns/pid") == space:  # noqa: PTH115
                    return pid
        return None

    def close(self) -> None:
        """Let go of it."""
        self.leash.close()
        if self.door is not None:
            self.door.close()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def children(pid: int) -> list[int]:
    """The children of a process."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = [pid]
    for one in found:
        found += children(one)
    return found[1:]


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def _inner(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return -1


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def signal_outer(pid: int, number: int) -> None:
    """Signal a process and, if it was killed or stopped, wait until that has happened."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        if number == signal.SIGKILL and gone(pid):
            return
        if number == signal.SIGSTOP:
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] in "TtZX":
                    return
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            return
        time.sleep(0.0005)


class Zygote:
    """The forking process of one host; `close` it at the end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sock, theirs = pair()
        self._children: dict[int, Child] = {}
        with theirs:
            self._process = host.popen(
                ["python3", "-S", "-P", "-m", "tests.faults.zygote", theirs.fileno()],
                env=_ENVIRONMENT,
                pass_fds=(theirs.fileno(),),
                cwd="/phaul",
            )
        self.sock.settimeout(_START_S)
        message, _ = take(self.sock)
        if message is None:
            raise RuntimeError(f"the zygote of {host.name} did not start")
        if host.depth > 1:  # to enter a cgroup namespace does not move into its group
            for pid in (self._process.pid, *children(self._process.pid)):  # nsenter's, and it
                (GROUP / "cgroup.procs").write_text(str(pid))

    def spawn(self, role: str, arguments: dict[str, Any], fds: Sequence[int] = ()) -> Child:
        """Fork a process in that role."""
        leash, theirs = pair()
        with theirs:
            tell(self.sock, {"role": role, **arguments}, [theirs.fileno(), *fds])
        while True:
            message, got = take(self.sock)
            if message is None:
                raise RuntimeError(f"the zygote of {self.host.name} has ended")
            if "pid" in message:
                child = Child(role, message["pid"], got[0], leash)
                self._children[child.inner] = child
                return child
            self._ended(message)

    def heard(self) -> None:
        """Take one message, of an end, if there still is one: `spawn` may have taken it."""
        if not select.select([self.sock], [], [], 0)[0]:
            return
        message, _ = take(self.sock)
        if message is None:
            raise RuntimeError(f"the zygote of {self.host.name} has ended")
        self._ended(message)

    def _ended(self, message: dict[str, Any]) -> None:
        child = self._children.pop(message["ended"], None)
        if child is not None:
            child.status = message["status"]

    def close(self) -> None:
        """End it, and all that it forked."""
        self.sock.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
