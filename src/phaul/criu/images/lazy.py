"""The page maps that a lazy restore needs, made from those of a chain's final dump.  Pure.

Used on the destination in the cutover.  CRIU restores lazily what is LAZY in the final dump's map,
and what is only in a parent has PARENT alone there.  So it is told anew, twice, by the mappings:

    for `criu restore`     PARENT -> PARENT | LAZY: left out.  Restored in full, without lazy pages,
                           it still is what it was, so that kept images stay good.
    for `criu lazy-pages`  LAZY ranges alone, as LAZY: with PARENT the daemon would read them from
                           the parent by itself, and never hand them over.

What may not be lazy keeps PARENT, and is read through the chain.  PRESENT has to stay where the
first map has it: offsets in the pages file follow from it.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from phaul.criu.images.container import COMMON_MAGIC
from phaul.criu.images.pagemap import PAGE_SIZE, PAGEMAP_MAGIC, PageFlags, Pagemap, PageRange
from phaul.criu.messages import message_class

__all__ = [
    "LARGEST",
    "encode_pagemap",
    "for_daemon",
    "for_restore",
    "is_lazy",
    "is_urgent",
    "small_at_once",
]

LARGEST: Final = 1 << 18
"""The most pages of a lazy range that is told to the daemon, 1 GiB: it keeps a length in a signed
32-bit number, and writes beyond its buffer, or ends, when that wraps at 2 GiB."""

_SMALL: Final = 64
_PRESENT_LAZY: Final = PageFlags.PRESENT | PageFlags.LAZY
_PARENT_LAZY: Final = PageFlags.PARENT | PageFlags.LAZY
_U32: Final = struct.Struct("<I")


def for_restore(pagemap: Pagemap, spans: Sequence[tuple[int, int]]) -> Pagemap:
    """The map for `criu restore`; `spans` is where memory may be lazy (`lazy_spans`)."""
    return Pagemap(pagemap.pages_id, tuple(_split(pagemap.ranges, spans)))


def for_daemon(pagemap: Pagemap, pages_id: int) -> Pagemap:
    """The map for `criu lazy-pages`, from the one for `criu restore`.

    `pages_id` is the N of a pages file which the daemon opens and never reads.
    """
    return Pagemap(
        pages_id,
        tuple(
            PageRange(at, min(LARGEST, (end - at) // PAGE_SIZE), PageFlags.LAZY)
            for start, end in _joined(pagemap.ranges)
            for at in range(start, end, LARGEST * PAGE_SIZE)
        ),
    )


def _joined(ranges: Iterable[PageRange]) -> Iterator[tuple[int, int]]:
    """The lazy ranges, neighbours as one: the daemon asks for each by itself, and waits for it."""
    start = end = 0
    for found in ranges:
        if _LAZY[found.flags]:
            if found.start != end:
                if start != end:
                    yield start, end
                start = found.start
            end = found.end
    if start != end:
        yield start, end


def is_urgent(name: str) -> bool:
    """Whether a lazy restore is made ready with an image, beside the arrival of the others."""
    return name in {"inventory.img", "pstree.img"} or name.startswith("mm-")


def is_lazy(found: PageRange) -> bool:
    """Whether a lazy restore leaves the range to the daemon."""
    return _LAZY[found.flags]


_LAZY: Final = tuple(bool(number & PageFlags.LAZY) for number in range(8))


def small_at_once(pagemap: Pagemap, most: int) -> tuple[Pagemap, int]:
    """The map with small lazy ranges of its own file as not lazy; and how many pages that are.

    They are `most` at most.  What a process touches first, its data and what it dirtied last, lies
    in such, and each page of it that is not there yet takes it a way to the daemon and back; to
    read them all while it is restored takes 1 ms.
    """
    left = most
    told = []
    for found in pagemap.ranges:
        small = found.pages <= _SMALL and found.flags == _PRESENT_LAZY
        if small and found.pages <= left:
            left -= found.pages
            told.append(PageRange(found.start, found.pages, PageFlags.PRESENT))
        else:
            told.append(found)
    return Pagemap(pagemap.pages_id, tuple(told)), most - left


def _split(ranges: Iterable[PageRange], spans: Sequence[tuple[int, int]]) -> Iterator[PageRange]:
    starts = [start for start, _ in spans]
    for found in ranges:
        if found.flags != PageFlags.PARENT:
            yield found
            continue
        # CRIU joins neighbouring holes, of whatever mapping they are.
        at, end = found.start, found.end
        where = max(bisect_right(starts, at) - 1, 0)
        while at < end:
            while where < len(spans) and spans[where][1] <= at:
                where += 1
            start, stop = spans[where] if where < len(spans) else (end, end)
            upto, flags = (
                (min(stop, end), _PARENT_LAZY) if start <= at else (min(start, end), found.flags)
            )
            yield PageRange(at, (upto - at) // PAGE_SIZE, flags)
            at = upto


def encode_pagemap(pagemap: Pagemap) -> bytes:
    """The file of a map, as CRIU reads it before 4.2 and after: the count stands in both places."""
    wire = message_class("PagemapEntry")()
    parts = [_U32.pack(magic) for magic in (COMMON_MAGIC, PAGEMAP_MAGIC)]

    def put(message: bytes) -> None:
        parts.append(_U32.pack(len(message)))
        parts.append(message)

    put(message_class("PagemapHead")(pages_id=pagemap.pages_id).SerializeToString())
    for found in pagemap.ranges:
        wire.vaddr = found.start
        wire.compat_nr_pages = found.pages & 0xFFFFFFFF
        wire.flags = found.flags
        wire.nr_pages = found.pages
        put(wire.SerializeToString())
    return b"".join(parts)
