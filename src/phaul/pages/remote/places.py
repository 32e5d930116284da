"""The pages that were left on the source, numbered in one row.  Pure.

Used on both hosts, in a post-copy: on the destination a page's number is its place in the file of
those that have come, on the source it says what may be asked for at all.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from phaul.pages.store.index import PAGE

__all__ = ["Places"]


class Places:
    """Numbers for the pages of `ranges`: of each page map (address, pages), in order, apart.

    `total` is how many there are.
    """

    def __init__(self, ranges: Mapping[int, Iterable[tuple[int, int]]]) -> None:
        self._maps: dict[int, tuple[list[int], list[int]]] = {}
        self._firsts: list[int] = []
        self._ranges: list[tuple[int, int, int]] = []
        self.total = 0
        for pagemap in sorted(ranges):
            starts: list[int] = []
            numbers: list[int] = []
            for address, pages in ranges[pagemap]:
                starts.append(address)
                numbers.append(len(self._ranges))
                self._firsts.append(self.total)
                self._ranges.append((pagemap, address, pages))
                self.total += pages
            self._maps[pagemap] = starts, numbers

    def number(self, pagemap: int, address: int) -> tuple[int, int] | None:
        """The number of a page, and how many follow that lie behind it in memory, itself included.

        None if it was not left on the source.
        """
        starts, numbers = self._maps.get(pagemap, ((), ()))
        at = bisect_right(starts, address) - 1
        if at < 0:
            return None
        which = numbers[at]
        into = (address - starts[at]) // PAGE
        left = self._ranges[which][2] - into
        return (self._firsts[which] + into, left) if left > 0 else None

    def where(self, number: int) -> tuple[int, int, int]:
        """Which page it is: its page map, its address, and how many follow, itself included."""
        which = bisect_right(self._firsts, number) - 1
        pagemap, address, pages = self._ranges[which]
        into = number - self._firsts[which]
        return pagemap, address + into * PAGE, pages - into
