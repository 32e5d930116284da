"""What processes write, as functions of the time: made up, or recorded.

A trace marks the pages that are written from one moment to another.  Moments only go forward, and
count the time that the process runs.  Randomness is seeded: a trace is the same every time.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Protocol

__all__ = [
    "PAGE",
    "Growing",
    "Huge",
    "Idle",
    "Mixture",
    "Phases",
    "Sweep",
    "Trace",
    "Uniform",
    "Zipf",
]

PAGE: Final = 4096
_MOST_WRITES: Final = 5
"""So many writes a page of a set at random leave 0.7 % of it clean: more are not made."""


class Trace(Protocol):
    """Marks what is written."""

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """Set the byte of each page that is written from `start` to `end`, in seconds."""


@dataclass(frozen=True)
class Idle:
    """Nothing."""

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""


def _count(rate: float, start: float, end: float) -> int:
    return int(rate * end) - int(rate * start)


@dataclass
class Uniform:
    """`rate` writes a second, anywhere in `size` pages from `first` on."""

    first: int
    size: int
    rate: float
    seed: int
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        count = min(_count(self.rate, start, end), _MOST_WRITES * self.size)
        first, size, draw = self.first, self.size, self._random.random
        for _ in range(count):
            pages[first + int(draw() * size)] = 1


@dataclass
class Zipf:
    """`rate` writes a second in `size` pages, the n-th as often as 1 / n ** `skew`."""

    first: int
    size: int
    rate: float
    seed: int
    skew: float = 1.0
    _random: random.Random = field(init=False)
    _sums: list[float] = field(init=False)
    _order: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._sums = list(accumulate((n + 1) ** -self.skew for n in range(self.size)))
        self._order = list(range(self.first, self.first + self.size))
        self._random.shuffle(self._order)

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        count = _count(self.rate, start, end)
        for page in self._random.choices(self._order, cum_weights=self._sums, k=count):
            pages[page] = 1


@dataclass(frozen=True)
class Sweep:
    """`rate` pages a second, one after the other, round and round in `size` pages."""

    first: int
    size: int
    rate: float

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        at, count = int(self.rate * start), min(_count(self.rate, start, end), self.size)
        begin = at % self.size
        ahead = min(count, self.size - begin)
        pages[self.first + begin : self.first + begin + ahead] = b"\1" * ahead
        rest = count - ahead
        pages[self.first : self.first + rest] = b"\1" * rest


@dataclass(frozen=True)
class Growing:
    """`rate` pages a second that were never written before, until `size` are."""

    first: int
    size: int
    rate: float

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        begin, stop = (min(int(self.rate * at), self.size) for at in (start, end))
        pages[self.first + begin : self.first + stop] = b"\1" * (stop - begin)


@dataclass(frozen=True)
class Phases:
    """What `busy` writes, only for the first `share` of each `period` seconds, from `offset` on."""

    busy: Trace
    period: float
    share: float
    offset: float = 0.0

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        self.busy.mark(pages, self._active(start), self._active(end))

    def _active(self, at: float) -> float:
        whole, rest = divmod(at + self.offset, self.period)
        on = self.share * self.period
        return whole * on + min(rest, on)


@dataclass(frozen=True)
class Mixture:
    """All of them at once."""

    parts: Sequence[Trace]

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        for part in self.parts:
            part.mark(pages, start, end)


@dataclass(frozen=True)
class Huge:
    """What `small` writes, in huge pages of `pages` each: one written byte dirties all of them."""

    small: Trace
    pages: int = 512

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See Trace."""
        fine = bytearray(len(pages))
        self.small.mark(fine, start, end)
        whole = b"\1" * self.pages
        for at in range(0, len(pages), self.pages):
            if any(fine[at : at + self.pages]):
                pages[at : at + self.pages] = whole


Make = Callable[[], Trace]
