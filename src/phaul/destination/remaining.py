"""What a later connection does for memory that still follows: asks how far it is, brings a link.

Used on the destination, in the agent of a later connection, when the process runs already.  It
talks to the keeper itself: the agent that had the migration may be dead.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import msgspec

from phaul.destination.following import SOCKET, ask_keeper
from phaul.destination.incoming import keeps, lost
from phaul.destination.memory import as_draining, drained
from phaul.errors import PageStoreError
from phaul.protocol import keeping as k
from phaul.protocol import messages as m
from phaul.protocol.settlement import Copy

__all__ = ["abandon", "bring_link", "drain", "with_memory"]

_WAIT_MS: Final = 1000
_ENDS_S: Final = 15.0
_LOOK_S: Final = 0.02


async def with_memory(standing: m.Standing, path: Path) -> m.Standing:
    """The standing of a migration, and how its memory stands if it runs here."""
    if standing.copy is not Copy.RUNNING:
        return standing
    found = await _look(path, 0)
    if found is None:
        return msgspec.structs.replace(standing, lost=lost(path))
    return msgspec.structs.replace(standing, lacking=found.lacking, lost=found.failed)


async def drain(path: Path) -> m.Draining:
    """The answer to Drain; a keeper that has ended has seen it through, or left word."""
    found = await _look(path, _WAIT_MS)
    if found is None:
        return drained(lost(path))
    return as_draining(found)


async def bring_link(path: Path, descriptor: int, host: str) -> None:
    """Hand the keeper another link, which stays the caller's; raises PageStoreError.

    Who brings one knows that the process runs here: so the keeper may remove all at its end.
    """
    await ask_keeper(path, k.Attach(), descriptor, host=host)
    await ask_keeper(path, k.Leave(told=True), host=host)


async def abandon(path: Path) -> None:
    """The memory is lost: have the copy ended that waits for it, and wait until it is."""
    with suppress(PageStoreError):  # it may have ended by itself
        await ask_keeper(path, k.Abandon())
    with anyio.move_on_after(_ENDS_S):
        while await _look(path, _WAIT_MS) is not None:
            await anyio.sleep(_LOOK_S)
            if not (path / SOCKET).exists():
                break


async def _look(path: Path, wait_ms: int) -> k.Standing | None:
    """What the keeper says, None if there is none any more."""
    try:
        found = await ask_keeper(path, k.Look(wait_ms=wait_ms))
    except PageStoreError:
        if keeps(path):
            raise
        return None
    return found if isinstance(found, k.Standing) else None
