"""What became of a copy whose agent or CRIU is dead: whether it runs, or is to be
ended; and what is left of one that runs.

Runs on the destination, when a migration is settled, and when a release fails.  CRIU ends by itself
when its agent does, and kills what it restored; what is left of that after a moment is killed here.
A CRIU that is killed leaves its tasks waiting for a word of it, for good.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.to_thread import run_sync as in_thread

from phaul.criu.log import read_tail
from phaul.destination.cage import kill_caged, leave_caged
from phaul.destination.copy import LOG, STATISTICS
from phaul.destination.ending import end_tree, ended
from phaul.destination.following import ask_keeper
from phaul.destination.incoming import Incoming, keeps, note_lost
from phaul.destination.session import DestinationSession
from phaul.errors import CgroupError, PhaulError, StateError
from phaul.protocol.keeping import Leave, Stage
from phaul.storage.journal import DestinationRecord
from phaul.subjects.proc import Proc, lives
from phaul.subjects.tree import tree_pids

__all__ = ["end_copy", "leave", "leave_memory", "runs"]

_logger = logging.getLogger("phaul")

_MOVES_S: Final = 0.5
_BY_ITSELF_S: Final = 3.0
_FAILED: Final = "Restoring FAILED"
"""CRIU's last line when it has killed what it restored; an error, so at any log level."""


async def runs(record: DestinationRecord, images: Path) -> bool:
    """Whether a copy that was to be let go runs, now that no CRIU has a hand in it any more.

    CRIU writes its statistics when it has let all go (restore_root_task() in its cr-restore.c); but
    also when it gives up what it holds, of which it sees no end: it only kills it.  Without them it
    runs if all of it is there and moves: what stands still has done nothing yet.
    """
    if record.root is None or not lives(record.root) or _FAILED in read_tail(images / LOG):
        return False
    if (images / STATISTICS).exists():
        return True
    before = _switches(record.root.pid)
    await anyio.sleep(_MOVES_S)
    whole = set(tree_pids(record.root.pid, Proc())) >= set(record.pids)
    return whole and lives(record.root) and _switches(record.root.pid) != before


def _switches(root: int) -> list[str]:
    """How often each thread of the tree has been given a processor (proc_pid_status(5))."""
    proc = Proc()
    found = []
    for pid in tree_pids(root, proc):
        for thread in proc.numbers(pid, "task"):
            text = proc.text(pid, "task", str(thread), "status") or ""
            found += [line for line in text.splitlines() if "ctxt_switches" in line]
    return found


async def end_copy(record: DestinationRecord, host: str = "") -> None:
    """Wait until nothing of the copy is left; raises StateError if it cannot be killed."""
    if record.root is None or await ended(record.root, _BY_ITSELF_S):
        await _empty(record, host)
        return
    await _empty(record, host)
    if not await end_tree(record.root):
        raise StateError(f"the held copy, PID {record.root.pid}, cannot be killed", host=host)


async def _empty(record: DestinationRecord, host: str) -> None:
    """End what is in the cage, if there is one; the half restored are found by nothing else."""
    if not record.cage:
        return
    try:
        await in_thread(kill_caged, record.cage)
    except CgroupError as error:
        raise StateError(f"what CRIU left behind cannot be ended: {error}", host=host) from error


async def leave(record: DestinationRecord) -> None:
    """Let a copy that runs out of the cage in which its agent died."""
    try:
        await in_thread(leave_caged, record.cage)
    except CgroupError as error:
        _logger.warning("left in the cage: %s", error)


async def leave_memory(
    session: DestinationSession | None, incoming: Incoming, *, told: bool
) -> bool:
    """Let the keeper see through what a copy that runs lacks; whether it needs the images for that.

    Where memory did not come, people decide what becomes of them.  `told` if the source knows that
    the copy runs.
    """
    if session is None:
        if not keeps(incoming.path):
            return False
        with suppress(PhaulError):  # one without memory that follows listens to its agent alone
            await ask_keeper(incoming.path, Leave(told=told))
        return True
    if session.memory is None:
        # All of it is in; the lock may still be that of a keeper whose copy was given up.
        return False
    try:
        standing = await session.memory.leave(told=told)
    except PhaulError as error:
        failed = error.what
    else:
        failed = standing.failed
    if not failed:
        return standing.stage is Stage.DRAINING
    if session.follows and told:
        return False
    note_lost(incoming.path, failed, follows=session.follows)
    incoming.stay()
    return True
