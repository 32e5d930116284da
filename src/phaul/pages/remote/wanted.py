"""Which pages are to be asked for next, and which have come.  Pure.

Used on the destination, in a post-copy.  A page, by its number, goes one way:

    LACKING --> SWEPT --> URGENT --> HERE        SWEPT: asked for, nobody waits for it yet
                  |                              URGENT: asked for, somebody waits
               `lost`: LACKING again, as nobody answers any more

Where somebody waited the sweep goes on behind it: what lies there is likely to be needed next.
"""

from collections.abc import Iterator
from typing import Final

__all__ = ["Wanted"]

_LACKING: Final = 0
_SWEPT: Final = 1
_URGENT: Final = 2
_HERE: Final = 3
_LOST: Final = bytes.maketrans(bytes([_SWEPT]), bytes([_LACKING]))


class Wanted:
    """The state of `total` pages; `lacking` are not there yet, `swept` are on their way.

    One byte a page.
    """

    def __init__(self, total: int) -> None:
        self._state = bytearray(total)
        self._cursor = 0
        self.lacking = total
        self.swept = 0

    def here(self, first: int, most: int) -> int:
        """How many pages from `first` on are there, without a gap, at most `most`."""
        return _leading(self._state[first : first + most], _HERE)

    def urgent(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Somebody waits for `count` pages: the stretches (first, count) to be asked for now."""
        state = self._state
        self._cursor = first + count
        at = first
        while at < first + count:
            start = at
            while at < first + count and state[at] in (_LACKING, _SWEPT):
                self.swept -= state[at] == _SWEPT
                state[at] = _URGENT
                at += 1
            if at > start:
                yield start, at - start
            else:
                at += 1

    def sweep(self, most: int) -> tuple[int, int] | None:
        """The next stretch (first, count) of at most `most` pages that nobody has asked for.

        None when there is none.  It counts as asked for.
        """
        state = self._state
        first = state.find(_LACKING, self._cursor)
        if first < 0:
            first = state.find(_LACKING, 0, self._cursor)
            if first < 0:
                return None
        count = _leading(state[first : first + most], _LACKING)
        state[first : first + count] = bytes([_SWEPT]) * count
        self.swept += count
        self._cursor = first + count
        return first, count

    def unsweep(self, first: int, count: int) -> None:
        """The stretch was not asked for after all; the sweep goes on with it."""
        self._state[first : first + count] = bytes(count)
        self.swept -= count
        self._cursor = first

    def arrived(self, first: int, count: int) -> None:
        """These pages are there; they may have been before."""
        part = self._state[first : first + count]
        self.swept -= part.count(_SWEPT)
        self.lacking -= count - part.count(_HERE)
        self._state[first : first + count] = bytes([_HERE]) * count

    def lost(self) -> None:
        """What was asked for is not going to be answered."""
        self._state = self._state.translate(_LOST)
        self.swept = 0

    def awaited(self) -> Iterator[tuple[int, int]]:
        """The stretches (first, count) that somebody waits for, to be asked for again."""
        state = self._state
        first = state.find(_URGENT)
        while first >= 0:
            count = _leading(state[first:], _URGENT)
            yield first, count
            first = state.find(_URGENT, first + count)


def _leading(part: bytearray, state: int) -> int:
    """How many of the first pages have this state."""
    return len(part) - len(part.lstrip(bytes([state])))
