"""One process for good: a PID is used again, a PID with its start time in one boot is not.

Used on both hosts, where a file says which phaul it belongs to, and later that one may be dead.
"""

import functools
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

__all__ = ["Incarnation", "boot_id", "living"]

_PROC: Final = Path("/proc")


@functools.cache
def boot_id() -> str:
    """What tells this boot of this host from any other; raises OSError."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


class Incarnation(msgspec.Struct, frozen=True, kw_only=True):
    """A process: its PID, its start in clock ticks after the boot (proc_pid_stat(5)), the boot."""

    pid: Annotated[int, Meta(ge=1, le=1 << 22)]
    start: Annotated[int, Meta(ge=0, le=1 << 62)]
    boot: Annotated[str, Meta(max_length=64)]

    @classmethod
    def of(cls, pid: int) -> "Incarnation | None":
        """The process that has this PID now, None if there is none or only its zombie."""
        try:
            text = (_PROC / str(pid) / "stat").read_text(errors="replace")
            boot = boot_id()
        except OSError:
            return None
        fields = text.rpartition(") ")[2].split()
        if fields[0] in "ZX":
            return None
        return cls(pid=pid, start=int(fields[19]), boot=boot)

    def alive(self) -> bool:
        """Whether this very process still runs on this host."""
        return Incarnation.of(self.pid) == self

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; returns whether it was there to get it."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # Whoever has the PID now, the handle is of: so it is looked at after it was opened.
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def living(pids: Iterable[int]) -> tuple[Incarnation, ...]:
    """The processes that have these PIDs now, without the gone, in the same order."""
    return tuple(one for pid in pids if (one := Incarnation.of(pid)) is not None)
