"""Which processes were in the last round, and what CRIU wants to know of it on the source.

Used on the source, between the rounds and the final dump of a hybrid.  The rounds went to the
destination, page maps and all; but a dump that leaves memory out leaves out what a parent has only
if that parent has a page map for the process, beside its own images.  Which pages these name is
looked at as a whole: what is not dirty is in some round.  So one map over all addresses will do.
"""

from pathlib import Path
from typing import Final

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.incarnation import Incarnation, living
from phaul.subjects.proc import Proc
from phaul.subjects.tree import inner_pid, tree_pids

__all__ = ["RoundTree", "everything"]

_ADDRESSES: Final = 1 << 47
_RANGE: Final = 1 << 42
"""A length that 32 bits can count in pages, and signed ones, too."""


def everything() -> bytes:
    """A page map that has all of a process's memory."""
    pages = _RANGE // PAGE_SIZE
    ranges = (PageRange(start, pages, PageFlags.PRESENT) for start in range(0, _ADDRESSES, _RANGE))
    return encode_pagemap(Pagemap(1, tuple(ranges)))


class RoundTree:
    """Watches which processes of the tree below `root` are in a round for sure."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before: set[Incarnation] = set()
        self.pids: tuple[int, ...] = ()
        """Those that were in the last round, as they are numbered in their own namespace."""

    def begin(self) -> None:
        """A round is going to be made."""
        self._before = self._now()

    def end(self) -> None:
        """It was made: who was there before and still is was in it.

        Of who came meanwhile nobody knows; all of its memory counts as dirty then.
        """
        self.pids = tuple(inner_pid(one.pid) for one in self._before & self._now())

    def _now(self) -> set[Incarnation]:
        return set(living(tree_pids(self._root, Proc())))

    def write(self, images: Path) -> None:
        """Write the page maps of the last round into its `images`; raises OSError."""
        told = everything()
        for pid in self.pids:
            (images / f"pagemap-{pid}.img").write_bytes(told)
