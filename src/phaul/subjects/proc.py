"""Reading of /proc/PID, while processes come and go.

Used in preflight, on the source; whether a process still lives is asked on both hosts.  What
belongs to a process that is gone reads as None; what may not be read is a SubjectError.
"""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from phaul.errors import SubjectError
from phaul.incarnation import Incarnation, boot_id

__all__ = ["HOST", "Proc", "Stat", "lives", "parse_stat", "parse_status"]

_T = TypeVar("_T")
HOST: Final = "source"
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
_SIGKILL: Final = 1 << (signal.SIGKILL - 1)
_PF_EXITING: Final = 0x4
"""include/linux/sched.h: the task is on its way out."""
_CHUNK: Final = 1 << 16
_MOST_TEXT: Final = 1 << 28
"""Of one file in bytes: smaps of a process with 65,530 mappings has some 60 MB."""


@dataclass(frozen=True)
class Stat:
    """What is used of /proc/PID/stat (proc_pid_stat(5)); `start` is in clock ticks since boot.

    `cpu` is the time it had, with that of its children that it has reaped, in clock ticks too.
    `pending` is a bit for each of the signals 1 to 31 on their way to the main thread.  SIGKILL is
    among them whoever of the process it was sent to (the kernel's complete_signal()).
    """

    name: str
    state: str
    parent: int
    group: int
    session: int
    terminal: int
    flags: int
    threads: int
    start: int
    pending: int
    cpu: int

    @property
    def dying(self) -> bool:
        """Whether it is never again in its own code: it ends, or has got its SIGKILL.

        On a busy machine it may be a while until it has a processor to end on.
        """
        return bool(self.flags & _PF_EXITING or self.pending & _SIGKILL)


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat; raises SubjectError if it is none."""
    # The name, in brackets, may hold anything.
    name, found, rest = text.partition("(")[2].rpartition(") ")
    fields = rest.split()
    try:
        if not found or len(fields[0]) != 1:
            raise ValueError(text)
        numbers = [int(fields[at]) for at in (1, 2, 3, 4, 6, 17, 19, 28)]
        numbers.append(sum(map(int, fields[11:15])))
    except (ValueError, IndexError):
        raise SubjectError("a stat file in /proc is not as the kernel writes it") from None
    return Stat(name, fields[0], *numbers)


def parse_status(text: str) -> dict[str, str]:
    """Read /proc/PID/status, or another file of `key: value` lines; others are passed over."""
    pairs = (line.partition(":") for line in text.split("\n"))
    return {key: value.strip() for key, found, value in pairs if found}


@dataclass(frozen=True)
class Proc:
    """A /proc; another `root` than the default is for tests."""

    root: Path = Path("/proc")

    def path(self, pid: int | str, *parts: str) -> str:
        """The path of something in /proc/PID."""
        return os.path.join(self.root, str(pid), *parts)  # noqa: PTH118 -- called very often

    def pids(self) -> list[int]:
        """All processes that there are."""
        return sorted(int(name) for name in os.listdir(self.root) if name.isdecimal())  # noqa: PTH208

    def text(self, pid: int | str, *parts: str) -> str | None:
        """What is in a file."""
        return self._try(_text, pid, *parts)

    def link(self, pid: int | str, *parts: str) -> str | None:
        """Where a symbolic link leads, as the kernel says it."""
        return self._try(os.readlink, pid, *parts)

    def stat(self, pid: int | str, *parts: str) -> os.stat_result | None:
        """The status of what a link leads to."""
        return self._try(os.stat, pid, *parts)

    def names(self, pid: int | str, *parts: str) -> list[str] | None:
        """The names in a directory."""
        return self._try(os.listdir, pid, *parts)

    def numbers(self, pid: int | str, *parts: str) -> list[int]:
        """The names in a directory that are numbers; none if the process is gone."""
        names = self.names(pid, *parts) or []
        return sorted(int(name) for name in names if name.isdecimal())

    def process(self, pid: int) -> Stat | None:
        """The process's stat."""
        text = self.text(pid, "stat")
        # A name is any bytes; it is shown, and sent.
        return (
            parse_stat(text.encode(errors="surrogateescape").decode(errors="replace"))
            if text
            else None
        )

    def status(self, pid: int) -> dict[str, str] | None:
        """The process's status, by key."""
        text = self.text(pid, "status")
        return parse_status(text) if text else None

    def _try(self, do: Callable[[str], _T], pid: int | str, *parts: str) -> _T | None:
        """None if it is gone; raises SubjectError for any other failure."""
        path = self.path(pid, *parts)
        try:
            return do(path)
        except OSError as error:
            if error.errno in _GONE:
                return None
            if error.errno in _DENIED:
                raise SubjectError(
                    f"{path} may not be read", host=HOST, remedy="run phaul as root"
                ) from error
            raise SubjectError(f"{path} cannot be read: {error.strerror}", host=HOST) from error


def lives(one: Incarnation) -> bool:
    """Whether this very process may be in its own code again: a dying one is there for a moment."""
    found = Proc().process(one.pid)
    if found is None or found.start != one.start or found.state in "ZX":
        return False
    return not found.dying and one.boot == boot_id()


def _text(path: str) -> str:
    # By the system calls alone: a file object makes room for all of the limit in each read. To see
    # what is left of a tree of 200 took 15 ms by one, and takes 5 to 8.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts, left = [], _MOST_TEXT
        while left > 0 and (part := os.read(descriptor, min(left, _CHUNK))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    return os.fsdecode(b"".join(parts))
