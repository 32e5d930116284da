"""Which pages have been given out: stretches of addresses, joined where they touch.  Pure.

Used by the page store on the destination, so that at the end what nobody asked for can be told.
"""

from bisect import bisect_left, bisect_right

__all__ = ["Stretches"]


class Stretches:
    """A set of addresses, as stretches from a start to before an end."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add all from `start` to before `end`."""
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def lacking(self, start: int, end: int) -> int:
        """How many addresses from `start` to before `end` are not in it."""
        lacks = end - start
        for at in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            lacks -= min(end, self._ends[at]) - max(start, self._starts[at])
        return lacks
