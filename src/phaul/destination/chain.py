"""The images of a migration, as the page store needs them: indexed, and the last told anew.

Used on the destination.  `add` is called when a round is in, while the process runs, and beside the
sending of the final dump's metadata; `finish` in the downtime, when these are there:

    images/0/   pagemap-7.img  pages-1.img                        add
    images/1/   pagemap-7.img  pages-1.img  parent -> ../0        add
    images/2/   pagemap-7.img  ...          parent -> ../1        add; finish: pagemap-7.img told
    lazy/       what `criu lazy-pages` reads                           anew, and for the daemon here

What is told anew for `criu restore` is still good for a restore in full.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, read_areas, read_pagemap
from phaul.criu.images.lazy import (
    encode_pagemap,
    for_daemon,
    for_restore,
    is_lazy,
    small_at_once,
)
from phaul.criu.images.memory import lazy_spans
from phaul.errors import ImageError
from phaul.pages.store import Index, Level, Where

__all__ = ["DAEMON_DIR", "INVENTORY", "MESSAGES", "TREE", "Chain", "needed"]

DAEMON_DIR: Final = "lazy"
MESSAGES: Final = ("PagemapHead", "PagemapEntry", "Memory")
"""What of CRIU's messages is used here (criu.messages.warm_up)."""
_NAME: Final = re.compile(r"pagemap-([1-9][0-9]{0,8})\.img")
INVENTORY: Final = "inventory.img"
TREE: Final = "pstree.img"
_PAGES_ID: Final = 1
_AT_ONCE: Final = 512
_PART: Final = 8
"""So many pages in all, and one in so many, are restored at once, though they could be left."""


def _where(flags: int) -> Where:
    if flags & PageFlags.PRESENT:
        return Where.HERE
    return Where.OLDER if flags & PageFlags.PARENT else Where.ELSEWHERE


_WHERE: Final = tuple(_where(flags) for flags in range(8))


@dataclass(eq=False)
class Chain:
    """The page files of the rounds so far, open, and the index of what is in them.  Close it.

    All here works on files and may take a while.
    """

    index: Index = field(default_factory=Index)
    files: list[int] = field(default_factory=list)
    lazy: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """After `finish`: of each process, what is left to the daemon, as (address, pages)."""
    elsewhere: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """After `finish`: of each process, what was left on the source, as (address, pages)."""
    _newest: Path | None = None
    _found: dict[int, Pagemap] = field(default_factory=dict)

    def add(self, images: Path) -> None:
        """Add a round that is in; raises ImageError."""
        self._newest, self._found = images, {}
        for process, path in _pagemaps(images):
            self._found[process] = read_pagemap(path)
            self._add(process, images, self._found[process])

    def finish(self, images: Path, daemon: Path) -> None:
        """Tell the final dump's page maps anew; for the daemon in its directory `daemon`.

        That is on the same file system.  The dump is added, if it was not before.  Raises
        ImageError, OSError.
        """
        if self._newest != images:
            self.add(images)
        (daemon / f"pages-{_PAGES_ID}.img").touch(mode=0o600)
        maps = {
            process: for_restore(found, lazy_spans(read_areas(images / f"mm-{process}.img")))
            for process, found in self._found.items()
        }
        lazy = sum(r.pages for told in maps.values() for r in told.ranges if is_lazy(r))
        left = min(_AT_ONCE, lazy // _PART)
        for process, found in self._found.items():
            path = images / f"pagemap-{process}.img"
            memory = f"mm-{process}.img"
            told, taken = small_at_once(maps[process], left)
            left -= taken
            if told.ranges != found.ranges:
                # Another file, then renamed: CRIU's own may be the one file of two directories.
                fresh = path.with_suffix(".new")
                fresh.write_bytes(encode_pagemap(told))
                fresh.replace(path)
            (daemon / memory).hardlink_to(images / memory)
            (daemon / path.name).write_bytes(encode_pagemap(for_daemon(told, _PAGES_ID)))
            self.lazy[process] = tuple((r.start, r.pages) for r in told.ranges if is_lazy(r))
            self.elsewhere[process] = tuple(
                (r.start, r.pages) for r in found.ranges if _WHERE[r.flags] is Where.ELSEWHERE
            )

    def _add(self, process: int, images: Path, found: Pagemap) -> None:
        path = images / f"pages-{found.pages_id}.img"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"{path}: cannot be opened: {error}") from error
        self.files.append(descriptor)
        level = Level(
            len(self.files) - 1, ((r.start, r.pages, _WHERE[r.flags]) for r in found.ranges)
        )
        info = os.fstat(descriptor)
        wanted = found.present_pages * PAGE_SIZE
        if not stat.S_ISREG(info.st_mode) or info.st_size != wanted:
            raise ImageError(f"{path}: {info.st_size} bytes, expected {wanted}")
        self.index.add(process, level)

    @property
    def lazy_pages(self) -> int:
        """After `finish`: how many pages are left to the daemon in all."""
        return sum(pages for ranges in self.lazy.values() for _, pages in ranges)

    def close(self) -> None:
        """Close the files; nobody may read them any more.  May be called again."""
        while self.files:
            os.close(self.files.pop())


def needed(images: Path) -> set[str]:
    """What has to be in a directory before it is finished, beside the memory that is there."""
    return {INVENTORY, TREE, *(f"mm-{process}.img" for process, _ in _pagemaps(images))}


def _pagemaps(images: Path) -> list[tuple[int, Path]]:
    """The page maps of processes in a directory, not those of shared memory, with their PIDs."""
    return [
        (int(match[1]), path) for path in images.iterdir() if (match := _NAME.fullmatch(path.name))
    ]
