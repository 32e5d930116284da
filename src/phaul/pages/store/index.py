"""Where each page of a chain of images lies: by page map and address.  Pure.

Used on the destination.  A level is added when its round is in, while the process runs, and is not
changed by those after it; so in the downtime only the final dump's own ranges are left to be added.
A page is looked for in the newest level first, and goes on to the one before where that says OLDER:

    final    |  here | older         |  here |
    round 1  |  older        | here  |  older |
    round 0  |  here                          |

A level that says nothing of a page ends the search: what an older one has of it is of a mapping
that is no more.  There are no pages of zeros to be told: one that was never touched is in no map,
and CRIU's daemon does not ask for it.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["PAGE", "Index", "Level", "Missing", "Piece", "Where"]

PAGE: Final = 4096
"""The size of a page, in bytes."""

_OLDER: Final = -1
_ELSEWHERE: Final = -2


class Where(Enum):
    """Where a level says that the pages of a range are: in its own file, in the level before it, or
    in no image at all (they were left on the source)."""

    HERE = "here"
    OLDER = "older"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Piece:
    """`pages` pages that lie together at the byte `offset` of the file numbered `file`."""

    file: int
    offset: int
    pages: int


@dataclass(frozen=True, slots=True)
class Missing:
    """`pages` pages that no image has.

    `elsewhere`: they are known to be on the source, which can be asked.  Else no level knows them.
    """

    pages: int
    elsewhere: bool


class Level:
    """One page map: which pages its file has, in order of address.  25 bytes a range."""

    __slots__ = ("_count", "_offsets", "_starts", "file", "pages")

    def __init__(self, file: int, ranges: Iterable[tuple[int, int, Where]]) -> None:
        """Make it of ranges (address, pages, where), in order and apart; `file` numbers its file.

        The pages that are HERE lie in the file one after the other; `pages` counts them.
        """
        self.file = file
        self._starts = array("Q")  # in pages: an address of the last page would not fit
        self._count = array("Q")
        self._offsets = array("q")
        offset = 0
        for start, pages, where in ranges:
            self._starts.append(start // PAGE)
            self._count.append(pages)
            if where is Where.HERE:
                self._offsets.append(offset)
                offset += pages * PAGE
            else:
                self._offsets.append(_OLDER if where is Where.OLDER else _ELSEWHERE)
        self.pages = offset // PAGE

    def find(self, page: int, pages: int) -> tuple[int, int]:
        """Of `pages` pages from the page number `page`: the offset of the first, or a mark below
        zero, and how many of them are alike."""
        at = bisect_right(self._starts, page) - 1
        if at >= 0:
            into = page - self._starts[at]
            left = self._count[at] - into
            if left > 0:
                offset = self._offsets[at]
                return (offset + into * PAGE if offset >= 0 else offset), min(left, pages)
        upto = self._starts[at + 1] - page if at + 1 < len(self._starts) else pages
        return _UNKNOWN, min(upto, pages)


_UNKNOWN: Final = -3


class Index:
    """The levels of each page map, newest first.

    Looking up and adding may be done by two threads.
    """

    def __init__(self) -> None:
        self._levels: dict[int, tuple[Level, ...]] = {}

    def add(self, pagemap: int, level: Level) -> None:
        """Add a level to the page map numbered `pagemap` (for a process: its PID): the newest."""
        self._levels[pagemap] = (level, *self._levels.get(pagemap, ()))

    def find(self, pagemap: int, address: int, pages: int) -> Piece | Missing:
        """Where the first of `pages` pages from `address` on is, with those that lie beside it."""
        page = address // PAGE
        for level in self._levels.get(pagemap, ()):
            offset, pages = level.find(page, pages)
            if offset >= 0:
                return Piece(level.file, offset, pages)
            if offset != _OLDER:
                return Missing(pages, elsewhere=offset == _ELSEWHERE)
        return Missing(pages, elsewhere=False)
