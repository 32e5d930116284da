"""The memory that comes when the process runs already: how far it has come, as the source hears it.

Runs on the source, after the commit, while the connection is still there.  Nothing depends on it:
over there it goes on whether anybody listens or not.
"""

import time
from typing import Final

import anyio

from phaul.errors import OutcomeUnknown, PhaulError
from phaul.protocol import messages as m
from phaul.report import Drained, Draining
from phaul.source.counterpart import Counterpart
from phaul.source.telling import Telling

__all__ = ["follow_drain"]

_MOST_S: Final = 60.0
"""So long it is listened to; some tens of GiB come in it."""
_ASK_S: Final = 10.0


async def follow_drain(counterpart: Counterpart, telling: Telling, peer: str) -> Drained | None:
    """Tell how the memory comes in, until it is there; None if that was not heard.

    Raises OutcomeUnknown if it did not come, and the process was ended for it.
    """
    if not counterpart.lazy or counterpart.settled:
        return None
    until = time.monotonic() + _MOST_S
    with anyio.CancelScope(shield=True):
        while time.monotonic() < until:
            try:
                found = await counterpart.drain(_ASK_S)
            except PhaulError:
                return None  # it is said with the goodbye
            if found.failure:
                raise OutcomeUnknown(
                    f"the process ran on {peer}, but its memory did not come, so it was ended "
                    f"there: {found.failure}",
                    host=peer,
                    remedy="what it was when it was moved is kept there, in its incoming directory",
                    fate=f"ended on {peer}",
                )
            if found.over:
                return _told(telling, found)
            telling.at_end(Draining(pages=found.pages, given=found.given))
    return None


def _told(telling: Telling, found: m.Draining) -> Drained:
    drained = Drained(pages=found.given, seconds=found.seconds)
    telling.at_end(drained)
    return drained
