"""Recorded traces: which pages of a process were written in each tick, and how they are kept.

A file is JSON: what it is, the length of a tick, how many pages there were, and the ticks, each a
list of runs of pages, as varints (count, then gap and length of each run), compressed, in base 64.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "Recorded", "load", "save"]

FOLDER: Final = Path(__file__).parent / "traces"

Runs = tuple[tuple[int, int], ...]
"""Runs of pages: the first, and the one after the last."""


@dataclass(frozen=True)
class Recorded:
    """A trace that was recorded; after its end it begins again.

    `ticks` has what was written in each `tick_s` seconds.
    """

    about: str
    pages: int
    tick_s: float
    ticks: Sequence[Runs]

    def mark(self, pages: bytearray, start: float, end: float) -> None:
        """See `traces.Trace`; a tick counts to where it begins."""
        first, last = (round(at / self.tick_s) for at in (start, end))
        for tick in range(first, min(last, first + len(self.ticks))):
            for begin, stop in self.ticks[tick % len(self.ticks)]:
                pages[begin:stop] = b"\1" * (stop - begin)


def save(path: Path, trace: Recorded) -> None:
    """Write it to `path`."""
    numbers = bytearray()
    for runs in trace.ticks:
        numbers += _varint(len(runs))
        at = 0
        for begin, stop in runs:
            numbers += _varint(begin - at) + _varint(stop - begin)
            at = stop
    written = base64.b64encode(zlib.compress(bytes(numbers), 9)).decode()
    whole = {
        "about": trace.about,
        "pages": trace.pages,
        "tick_s": trace.tick_s,
        "ticks": len(trace.ticks),
        "written": written,
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def load(path: Path) -> Recorded:
    """Read what `save` wrote."""
    whole = json.loads(path.read_text())
    numbers = _numbers(zlib.decompress(base64.b64decode(whole["written"])))
    ticks = tuple(tuple(_runs(numbers)) for _ in range(whole["ticks"]))
    return Recorded(whole["about"], whole["pages"], whole["tick_s"], ticks)


def _runs(numbers: Iterator[int]) -> Iterable[tuple[int, int]]:
    at = 0
    for _ in range(next(numbers)):
        begin = at + next(numbers)
        at = begin + next(numbers)
        yield begin, at


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
