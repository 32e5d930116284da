"""A file of pages, whose first part is written through memory that stands ready.

Used on the destination, in a thread.  To give a file its pages costs more than to copy into them:
so it is done ahead, by `grow`, while the process still runs.  Natively, a dump of 1 GB is frozen
for 0.33 s so, and for 0.70 s by CRIU's own page server, which splices into a file that grows.  What
comes when the room is used up is spliced here, too.
"""

import mmap
import os
import threading
from contextlib import suppress
from typing import Final, Protocol

__all__ = ["PagesFile", "Source"]

_POPULATE_WRITE: Final = 23
"""MADV_POPULATE_WRITE of include/uapi/asm-generic/mman-common.h, from Linux 5.14 on."""
_ROUND: Final = mmap.ALLOCATIONGRANULARITY


class Source(Protocol):
    """Where bytes come from."""

    def fill(self, view: memoryview) -> None:
        """Fill all of `view`; raises PageStoreError if there are no more."""

    def move(self, descriptor: int, offset: int, length: int) -> None:
        """Write the next `length` bytes to a file; raises OSError, PageStoreError."""


class PagesFile:
    """The open file `descriptor`, which is this object's from now on; `finish` or `close` it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._windows: list[mmap.mmap] = []
        self._capacity = self._window = self._within = 0
        self._growing = threading.Lock()
        self.size = 0
        """The bytes that were taken."""

    @property
    def capacity(self) -> int:
        """The bytes for which it has room now."""
        return self._capacity

    def grow(self, size: int) -> None:
        """Give it room for so many bytes more, from any thread, before it is written to.

        Raises OSError.
        """
        with self._growing:
            size = -(-size // _ROUND) * _ROUND
            os.posix_fallocate(self.descriptor, self._capacity, size)
            window = mmap.mmap(self.descriptor, size, offset=self._capacity)
            with suppress(OSError):  # a kernel before 5.14 gives the pages when they are touched
                window.madvise(_POPULATE_WRITE)
            self._windows.append(window)
            self._capacity += size

    def take(self, source: Source, length: int) -> None:
        """Take the next `length` bytes of `source` in; raises OSError, and what that raises."""
        while length:
            if self._window == len(self._windows):
                source.move(self.descriptor, self.size, length)
                self.size += length
                return
            window = self._windows[self._window]
            part = min(length, len(window) - self._within)
            with memoryview(window) as whole, whole[self._within : self._within + part] as view:
                source.fill(view)
            self._within += part
            self.size += part
            length -= part
            if self._within == len(window):
                self._window, self._within = self._window + 1, 0

    def finish(self) -> None:
        """Cut it to what was taken, it is complete then; raises OSError.  `close` it."""
        if self._capacity > self.size:
            os.ftruncate(self.descriptor, self.size)

    def close(self) -> None:
        """Close it.  May be called again; takes 0.1 s for 1 GB of room."""
        with self._growing:
            while self._windows:
                self._windows.pop().close()
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1
