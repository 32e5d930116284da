"""A process to be moved: whether it can be taken, and where it is afterwards.

Used on the source: first in preflight, and at the end, when its fate is said.
"""

import os
from dataclasses import dataclass
from typing import Final

from phaul.errors import SubjectError
from phaul.subjects.memory import resident
from phaul.subjects.proc import Proc

__all__ = ["Subject", "examine"]

_PF_KTHREAD: Final = 0x00200000
_PROC: Final = Proc()


@dataclass(frozen=True)
class Subject:
    """The root of the tree that is moved; `start` tells it from a later process of the same PID."""

    pid: int
    name: str
    start: int

    def alive(self) -> bool:
        """Whether the process still exists here, and is no zombie."""
        now = _PROC.process(self.pid)
        return now is not None and now.start == self.start and now.state not in "ZX"

    def memory_bytes(self) -> int:
        """The resident memory of the root process in bytes, 0 if it is gone."""
        return resident(self.pid, _PROC)

    def fate(self) -> str:
        """Where the process is, in words: "still running here, PID 4242"."""
        now = _PROC.process(self.pid)
        if now is None or now.start != self.start or now.state in "ZX":
            return f"no longer here: PID {self.pid} has ended"
        if now.state in "tT":
            return (
                f"still here, but stopped, PID {self.pid}: "
                f"`kill -CONT {self.pid}` if nothing holds it"
            )
        return f"still running here, PID {self.pid}"


def examine(pid: int, host: str = "") -> Subject:
    """The process `pid` as a subject; raises SubjectError if it is none that can be taken.

    Checked is what needs no CRIU: it exists, is a process and not a thread or a kernel thread, not
    dead, not phaul nor one that phaul runs in, not PID 1, not under a debugger, and ours to touch.
    """

    def refuse(what: str, remedy: str = "") -> SubjectError:
        return SubjectError(f"process {pid} {what}", host=host, remedy=remedy)

    if pid <= 0:
        raise SubjectError(f"{pid} is not a PID", host=host, remedy="name one as `ps` shows it")
    stat = _PROC.process(pid)
    if stat is None:
        raise refuse("does not exist", "see `ps`; in a container, use its PID on the host")
    status = _PROC.status(pid)
    if status is None:
        raise refuse("has just ended")
    if stat.flags & _PF_KTHREAD:
        raise refuse(f"is a kernel thread ({stat.name})", "only processes can be moved")
    if (group := int(status["Tgid"])) != pid:
        raise refuse(f"is a thread of process {group}", f"move process {group}, all its threads go")
    if stat.state in "ZX":
        raise refuse(f"is dead, waiting for its parent {stat.parent}", "there is nothing to move")
    if pid in _ancestry(os.getpid()):
        what = "is phaul itself" if pid == os.getpid() else "is what phaul runs in"
        raise refuse(what, "start phaul outside of the tree that is to be moved")
    if pid == 1:
        raise refuse("is the init of this machine", "a whole machine cannot be moved")
    if (tracer := int(status.get("TracerPid", "0"))) != 0:
        raise refuse(f"is traced by process {tracer}", "end the debugger or strace")
    if not _ours(status):
        owner = status["Uid"].split()[0]
        raise refuse(f"belongs to user {owner}", "run phaul as root")
    return Subject(pid, stat.name, stat.start)


def _ancestry(pid: int) -> set[int]:
    chain: set[int] = set()
    while pid and pid not in chain:
        chain.add(pid)
        stat = _PROC.process(pid)
        pid = stat.parent if stat else 0
    return chain


def _ours(status: dict[str, str]) -> bool:
    me = os.geteuid()
    return me == 0 or {int(uid) for uid in status["Uid"].split()} == {me}
