"""One round's images as phaul's own page server writes them, just as CRIU's would.

Used on the destination, in each round and in the final dump.

    pagemap-7.img       a map of the process 7       pages-1.img     its pages
    pagemap-shmem-9.img a map of shared memory       pages-2.img
    parent -> ../0      the round before
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.errors import PageStoreError
from phaul.pages.receiving import Kind, Map, PagesFile
from phaul.pages.store.served import Stretches

__all__ = ["Intake", "Level", "spare_file"]

_NAMES: Final = {Kind.PROCESS: "pagemap-{}.img", Kind.SHARED: "pagemap-shmem-{}.img"}
_HOLE: Final = tuple(
    bool(number & PageFlags.PARENT) and not number & PageFlags.PRESENT for number in range(8)
)
_FLAGS: Final = tuple(PageFlags(number) for number in range(8))

Level = dict[Map, Stretches]
"""Of each page map of a round, the addresses that it, or a round before it, has."""


def spare_file(folder: Path) -> PagesFile:
    """A file without a name on the file system of `folder`, to be given room before it is needed.

    Raises OSError, also where the file system has no such files.
    """
    return PagesFile(os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600))


@dataclass
class _Place:
    of: Map
    number: int
    file: PagesFile
    parent: Stretches | None
    ranges: list[tuple[int, int, int]] = field(default_factory=list)
    has: Stretches = field(default_factory=Stretches)
    _end: int = 0

    def add(self, address: int, pages: int, flags: int) -> None:
        end = address + pages * PAGE_SIZE
        if address < self._end:
            raise PageStoreError(f"the range at {address:#x} of {self.of} is out of order")
        if _HOLE[flags] and (self.parent is None or self.parent.lacking(address, end)):
            raise PageStoreError(
                f"the pages at {address:#x} of {self.of} are said to be in the round before, "
                "and are not"
            )
        self._end = end
        self.ranges.append((address, pages, flags))
        if flags != PageFlags.LAZY:
            self.has.add(address, end)


class Intake:
    """The round whose images go to `images`; `before` is the round before it, None for none.

    `spare` is a file that has room already, for the memory of the first process; that of all is
    mostly there.  `finish` it, and `close` it in any case.
    """

    def __init__(self, images: Path, before: Level | None, spare: PagesFile | None = None) -> None:
        self.images = images
        self._before = before if before is not None else {}
        self._spare = spare
        self._places: dict[Map, _Place] = {}

    @property
    def level(self) -> Level:
        """What the next round's parent has."""
        return {of: place.has for of, place in self._places.items()}

    def open(self, of: Map) -> _Place:
        """See Shelf."""
        if of in self._places:
            raise PageStoreError(f"criu sent {of} twice")
        number = len(self._places) + 1
        spare = None
        if of.kind is Kind.PROCESS:
            spare, self._spare = self._spare, None
        place = _Place(of, number, self._file(number, spare), self._before.get(of))
        self._places[of] = place
        return place

    def _file(self, number: int, spare: PagesFile | None) -> PagesFile:
        path = self.images / f"pages-{number}.img"
        if spare is None:
            return PagesFile(
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            )
        try:
            folder = os.open(self.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # linkat(2) with AT_SYMLINK_FOLLOW, which Python calls only for a `dst_dir_fd`.
                source = f"/proc/self/fd/{spare.descriptor}"
                os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        except OSError:
            spare.close()
            raise
        return spare

    def in_parent(self, of: Map) -> bool:
        """See Shelf."""
        return of in self._before

    def finish(self) -> None:
        """Complete the files; raises OSError.  Those that had no room are closed, too."""
        for place in self._places.values():
            place.file.finish()
            if not place.file.capacity:
                place.file.close()
            ranges = tuple(PageRange(at, pages, _FLAGS[flags]) for at, pages, flags in place.ranges)
            name = _NAMES[place.of.kind].format(place.of.id)
            with (self.images / name).open("xb") as file:
                file.write(encode_pagemap(Pagemap(place.number, ranges)))

    def close(self) -> None:
        """Close what is open.  May be called again."""
        spare, self._spare = self._spare, None
        for file in (spare, *(place.file for place in self._places.values())):
            if file is not None:
                file.close()
