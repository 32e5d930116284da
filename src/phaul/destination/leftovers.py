"""The end of a copy whose agent is dead: it never ran, and nobody holds it any more.

Runs on the destination, when a migration is settled.  CRIU ends by itself when its agent does, and
kills what it restored; what is left of that after a moment is killed here.
"""

import signal
from typing import Final

import anyio
from anyio.to_thread import run_sync as in_thread

from phaul.destination.cage import kill_caged
from phaul.errors import CgroupError, StateError
from phaul.incarnation import Incarnation
from phaul.storage.journal import DestinationRecord

__all__ = ["end_copy"]

_BY_ITSELF_S: Final = 3.0
_KILL_S: Final = 10.0


async def end_copy(record: DestinationRecord, host: str = "") -> None:
    """Wait until nothing of the copy is left; raises StateError if it cannot be killed."""
    if record.root is None or await _ended(record.root, _BY_ITSELF_S):
        await _empty(record, host)
        return
    await _empty(record, host)
    record.root.signal(signal.SIGKILL)
    if not await _ended(record.root, _KILL_S):
        raise StateError(f"the held copy, PID {record.root.pid}, cannot be killed", host=host)


async def _ended(process: Incarnation, within: float) -> bool:
    with anyio.move_on_after(within):
        while process.alive():
            await anyio.sleep(0.01)
        return True
    return not process.alive()


async def _empty(record: DestinationRecord, host: str) -> None:
    """End what is in the cage, if there is one; the half restored are found by nothing else."""
    if not record.cage:
        return
    try:
        await in_thread(kill_caged, record.cage)
    except CgroupError as error:
        raise StateError(f"what CRIU left behind cannot be ended: {error}", host=host) from error
