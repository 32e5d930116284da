"""`pagemap-*.img`: which pages a round has, and which its parent; read on the destination.

Used after a round and in the cutover.  The pages themselves lie in `pages-N.img`, raw; a PRESENT
range's offset there is the sum of the PRESENT ranges before it.
"""

from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any, Final

from phaul.criu.images.container import COMMON_MAGIC, read_messages
from phaul.criu.messages import parse
from phaul.errors import ImageError

__all__ = ["PAGEMAP_MAGIC", "PAGE_SIZE", "PageFlags", "PageRange", "Pagemap", "read_pagemap"]

PAGE_SIZE: Final = 4096
PAGEMAP_MAGIC: Final = 0x56084025
_MAGICS: Final = (COMMON_MAGIC, PAGEMAP_MAGIC)
# An entry takes 8 bytes or more for a page or more; 1 GiB of pagemap is some 500 GB of memory.
_LIMIT: Final = 1 << 30
_ADDRESS_SPACE: Final = 1 << 64


class PageFlags(IntFlag):
    """Where the pages of a range are; LAZY says that they may be restored on demand."""

    PARENT = 1
    LAZY = 2
    PRESENT = 4


# Looked up, since to make a flag takes longer than to read the rest of its entry.
_FLAGS: Final = tuple(PageFlags(number) for number in range(8))


@dataclass(frozen=True, slots=True)
class PageRange:
    """`pages` pages from the address `start`."""

    start: int
    pages: int
    flags: PageFlags

    @property
    def end(self) -> int:
        """The first address behind the range."""
        return self.start + self.pages * PAGE_SIZE


@dataclass(frozen=True)
class Pagemap:
    """The ranges of one process or shared segment, in order of their addresses.

    `pages_id` is the N of `pages-N.img`.
    """

    pages_id: int
    ranges: tuple[PageRange, ...]

    @property
    def present_pages(self) -> int:
        """The number of pages in `pages-N.img`."""
        return sum(r.pages for r in self.ranges if PageFlags.PRESENT in r.flags)


def _flags(wire: Any) -> PageFlags:  # noqa: ANN401
    number: int = wire.flags & 7
    if wire.in_parent:
        return _FLAGS[number | 1]
    return _FLAGS[number] if wire.HasField("flags") else PageFlags.PRESENT


def read_pagemap(path: Path) -> Pagemap:
    """The page map in the file `path`, of CRIU before 4.2 or after; raises ImageError.

    The ranges are checked to be in order, apart, and within the address space.
    """
    messages = read_messages(path, _MAGICS, _LIMIT)
    head = next(messages, None)
    if head is None:
        raise ImageError(f"{path}: has no head")
    pages_id: int = parse("PagemapHead", head, str(path)).pages_id
    ranges: list[PageRange] = []
    where = str(path)
    end = 0
    for message in messages:
        wire = parse("PagemapEntry", message, where)
        pages = wire.nr_pages if wire.HasField("nr_pages") else wire.compat_nr_pages
        found = PageRange(wire.vaddr, pages, _flags(wire))
        if found.start % PAGE_SIZE or not pages or found.end > _ADDRESS_SPACE:
            raise ImageError(f"{path}: {pages} pages at {found.start:#x} are no range of memory")
        if found.start < end:
            raise ImageError(f"{path}: the range at {found.start:#x} is out of order")
        end = found.end
        ranges.append(found)
    return Pagemap(pages_id, tuple(ranges))
