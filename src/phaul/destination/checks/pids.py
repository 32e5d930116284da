"""PIDs of the tree: are they free here?

Used in preflight, on the destination.  A number is taken as long as anything goes by it: a process,
a thread, and also a session or a process group whose leader has ended.  The kernel gives none that
is not below `kernel.pid_max`, not even to CRIU, which asks for each by clone3's `set_tid`.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.protocol.preflight import Finding, PidsNeed

__all__ = ["look"]

_PF_KTHREAD: Final = 0x00200000
_STAT_LIMIT: Final = 4096
_PID_MAX_LIMIT: Final = 1 << 22
_NAMESPACE: Final = "move a container that has a PID namespace of its own"


@dataclass(frozen=True)
class _Holder:
    """Who has a number: its process, and as what."""

    what: str
    kernel: bool = False


def look(needs: Sequence[PidsNeed], context: CheckContext) -> list[Finding]:
    """The findings of `pids`."""
    sheet = Sheet("pids")
    wanted = {pid for need in needs for pid in need.pids}
    most = _pid_max(context.proc)
    if most is not None and (above := sorted(pid for pid in wanted if pid >= most)):
        sheet.no(
            f"PIDs up to {above[-1]} are needed, there they end at {most - 1} ({len(above)} above)",
            f"there: `sysctl -w kernel.pid_max={min(above[-1] + 1, _PID_MAX_LIMIT)}`",
        )
    holders = _holders(context.proc, wanted)
    for pid in sorted(holders):
        holder = holders[pid]
        end = "a thread of the kernel cannot be ended: " if holder.kernel else "end it there, or "
        sheet.no(f"PID {pid} is taken there by {holder.what}", end + _NAMESPACE)
    if not sheet.found:
        sheet.ok(f"{count(len(wanted), 'PID')} {'is' if len(wanted) == 1 else 'are'} free")
    return sheet.found


def _pid_max(proc: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int((proc / "sys/kernel/pid_max").read_text())
    return None


def _holders(proc: Path, wanted: Collection[int]) -> dict[int, _Holder]:
    """Who has which of the wanted numbers."""
    found: dict[int, _Holder] = {}
    for pid in wanted:
        # Threads have a directory there too, which a listing does not show.
        if (proc / str(pid)).is_dir():
            found[pid] = _task(proc, pid)
    with os.scandir(proc) as entries:
        for entry in entries:
            if not entry.name.isdecimal():
                continue
            stat = _stat(Path(entry.path))
            if stat is None:
                continue
            name, group, session, _flags = stat
            for number, what in ((session, "session"), (group, "process group")):
                if number in wanted and number not in found:
                    found[number] = _Holder(f"the {what} of {name} (PID {entry.name})")
    return found


def _task(proc: Path, pid: int) -> _Holder:
    """What the process or thread is; one that has just ended is named as well."""
    stat = _stat(proc / str(pid))
    if stat is None:
        return _Holder("a process that has just ended")
    name, _group, _session, flags = stat
    group = pid
    with suppress(OSError, ValueError), (proc / str(pid) / "status").open("rb") as file:
        for line in file.read(_STAT_LIMIT).splitlines():
            if line.startswith(b"Tgid:"):
                group = int(line[5:])
    if group != pid:
        return _Holder(f"a thread of {name} (PID {group})")
    return _Holder(name, kernel=bool(flags & _PF_KTHREAD))


def _stat(process: Path) -> tuple[str, int, int, int] | None:
    """Name, process group, session and flags of a task, see proc_pid_stat(5); None if it is gone.

    The name may hold anything, a bracket and line ends too.
    """
    try:
        with (process / "stat").open("rb") as file:
            text = file.read(_STAT_LIMIT).decode(errors="replace")
        name, _, rest = text.partition("(")[2].rpartition(") ")
        fields = rest.split()
        return printable(name) or "?", int(fields[2]), int(fields[3]), int(fields[6])
    except (OSError, ValueError, IndexError):
        return None
