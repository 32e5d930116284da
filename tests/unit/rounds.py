"""What CRIU sends in a round, for tests that are the source themselves; nothing in it is asked."""

from typing import Final

from phaul.pages.pageserver import PARENT, PRESENT
from phaul.pages.receiving import Commands, Kind, Map
from phaul.pages.receiving.wire import Add, Close, Open
from phaul.pages.store.index import PAGE

__all__ = ["PAGES", "ROUND", "UNFOUNDED"]

_WIRE: Final = Commands(wide=True)
_OF: Final = Map(Kind.PROCESS, 7)
_BEGUN: Final = _WIRE.encode(Open(_OF, answered=False))

PAGES: Final = b"page" * (PAGE // 4)
ROUND: Final = _BEGUN + _WIRE.encode(Add(_OF, PAGE, 1, PRESENT)) + PAGES + _WIRE.encode(Close())
"""One page of the process 7."""
UNFOUNDED: Final = _BEGUN + _WIRE.encode(Add(_OF, 1 << 40, 1, PARENT))
"""A page that is said to be in the round before, and is not."""
