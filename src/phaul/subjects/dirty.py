"""How fast a tree changes its memory, measured without CRIU.

Used in preflight, on the source.  The kernel marks pages as they are written (soft-dirty, its
Documentation/admin-guide/mm/soft-dirty.rst): "4" into /proc/PID/clear_refs unmarks all, bit 55 of
an entry of /proc/PID/pagemap is the mark.

Unmarking is what CRIU does at the start of each round too.  So before the first round it does no
harm: that round sends all of the memory anyhow, and unmarks anew.  While a pre-copy is under way it
would lose pages, silently: never measure then.  The cost to the tree is a page fault for each page
that it writes next, as in a round.
"""

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from phaul.errors import SubjectError
from phaul.subjects.huge import HUGE_PAGE
from phaul.subjects.memory import Area, parse_smaps
from phaul.subjects.proc import HOST, Proc, parse_stat
from phaul.subjects.tree import tree_pids

__all__ = ["DirtyMeter", "count_dirty", "dirty_rate", "has_soft_dirty", "whole_blocks"]

_T = TypeVar("_T")
_PAGE: Final = mmap.PAGESIZE
_ENTRY: Final = 8
_CHUNK: Final = 1 << 20
"""Of pagemap at once, in bytes: the entries of 512 MiB."""
_BLOCK: Final = HUGE_PAGE // _PAGE
_UNMARK: Final = b"4"
# The bits of an entry, byte by byte: 55 is the top one of byte 6; in byte 7, bit 5 says that the
# page is a file's or shared, bit 6 that it is swapped out, bit 7 that it is present.
_MARKED: Final = bytes(value >> 7 for value in range(256))
_PRIVATE: Final = bytes(int(bool(value & 0xC0) and not value & 0x20) for value in range(256))


def count_dirty(entries: bytes) -> int:
    """How many of these pagemap entries are of private pages that were written.

    One table lookup and one AND over the whole buffer, some 10 ns an entry.
    """
    marked = int.from_bytes(entries[6::_ENTRY].translate(_MARKED), "little")
    if not marked:
        return 0
    whole = len(entries) // _ENTRY * _ENTRY
    private = int.from_bytes(entries[7:whole:_ENTRY].translate(_PRIVATE), "little")
    return (marked & private).bit_count()


def whole_blocks(address: int, entries: bytes) -> list[int]:
    """Where a huge page's worth of these entries, from `address` on, was written as a whole."""
    marked = entries[6::_ENTRY].translate(_MARKED)
    private = entries[7::_ENTRY].translate(_PRIVATE)
    whole = b"\1" * _BLOCK
    return [
        address + at * _PAGE
        for at in range(-(address // _PAGE) % _BLOCK, len(private) - _BLOCK + 1, _BLOCK)
        if marked[at : at + _BLOCK] == whole and private[at : at + _BLOCK] == whole
    ]


def has_soft_dirty(pagemap: str = "/proc/self/pagemap") -> bool:
    """Whether this kernel marks pages: one of our own is written and looked at."""
    page = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[0] = 1
    view = ctypes.c_char.from_buffer(page)
    try:
        fd = os.open(pagemap, os.O_RDONLY | os.O_CLOEXEC)
        try:
            entry = os.pread(fd, _ENTRY, ctypes.addressof(view) // _PAGE * _ENTRY)
        finally:
            os.close(fd)
    except OSError:
        return False
    finally:
        del view
        page.close()
    return count_dirty(entry) == 1


def _entries(pagemap: int, areas: Iterable[Area]) -> Iterator[tuple[Area, int, bytes]]:
    """The entries of all writable private mappings that hold anything, and where they begin."""
    for area in areas:
        if area.shared or not (area.kib.get("Anonymous", 0) or area.kib.get("Swap", 0)):
            continue
        at, end = area.start // _PAGE * _ENTRY, area.end // _PAGE * _ENTRY
        while at < end:
            entries = os.pread(pagemap, min(_CHUNK - at % _CHUNK, end - at), at)
            if not entries:
                break
            yield area, at // _ENTRY * _PAGE, entries
            at += len(entries)


@dataclass
class DirtyMeter:
    """Measures the tree below `root_pid` from `start` to `stop`; what lies between is the caller's.

    After `stop`, `huge` are the huge pages that were written to, (PID, address) each, and
    `huge_rate` is the part of the rate that they are.

    Both block for some milliseconds a GiB: an asynchronous caller gives them a thread, as
    `dirty_rate` does.
    """

    root_pid: int
    proc: Proc = field(default_factory=Proc)
    clock: Callable[[], float] = time.monotonic
    supported: Callable[[], bool] = has_soft_dirty
    huge: list[tuple[int, int]] = field(default_factory=list, init=False)
    huge_rate: float = field(default=0.0, init=False)
    _begun: dict[int, tuple[int, float]] = field(default_factory=dict, init=False)

    def start(self) -> bool:
        """Unmark the memory of the tree; False, and nothing done, without soft-dirty.

        Raises SubjectError if the tree is gone or not ours.
        """
        self._begun = {}
        if not self.supported():
            return False
        for pid in tree_pids(self.root_pid, self.proc):
            if (start := self._unmark(pid)) is not None:
                self._begun[pid] = (start, self.clock())
        if self.root_pid not in self._begun:
            raise SubjectError(f"process {self.root_pid} has just ended", host=HOST)
        return True

    def stop(self) -> float | None:
        """Bytes a second that the tree changed since `start`; None if that was False.

        Pages that were written several times count once, as in a round.  What was born meanwhile
        counts whole; what has ended does not.  Raises SubjectError as `start` does.
        """
        if not self._begun:
            return None
        rate = self.huge_rate = 0.0
        self.huge = []
        first = min(begun for _, begun in self._begun.values())
        pids = tree_pids(self.root_pid, self.proc)
        if not pids:
            raise SubjectError(f"process {self.root_pid} has just ended", host=HOST)
        for pid in pids:
            if (found := self._dirty(pid)) is None:
                continue
            start, pages, huge = found
            known = self._begun.get(pid)
            begun = known[1] if known and known[0] == start else first
            seconds = max(self.clock() - begun, 1e-3)
            rate += pages * _PAGE / seconds
            self.huge += ((pid, address) for address in huge)
            self.huge_rate += len(huge) * HUGE_PAGE / seconds
        self._begun = {}
        return rate

    def _unmark(self, pid: int) -> int | None:
        """Unmark one process; its start time, None if it is gone, or no longer of the tree."""

        def unmark(here: int) -> int | None:
            stat = parse_stat(_text(here, "stat"))
            if pid != self.root_pid and stat.parent not in self._begun:
                return None
            with _opened("clear_refs", os.O_WRONLY, here) as fd:
                os.write(fd, _UNMARK)
            return stat.start

        return _with_process(self.proc.path(pid), unmark)

    def _dirty(self, pid: int) -> tuple[int, int, list[int]] | None:
        """The start time of a process, how many pages it has changed, and its huge pages of these.

        None if it is gone.
        """

        def dirty(here: int) -> tuple[int, int, list[int]]:
            stat = parse_stat(_text(here, "stat"))
            areas = parse_smaps(_text(here, "smaps"))
            pages, huge = 0, []
            with _opened("pagemap", os.O_RDONLY, here) as fd:
                for area, address, entries in _entries(fd, areas):
                    pages += count_dirty(entries)
                    if area.kib.get("AnonHugePages", 0):
                        huge += whole_blocks(address, entries)
            return stat.start, pages, huge

        return _with_process(self.proc.path(pid), dirty)


def _with_process(path: str, do: Callable[[int], _T | None]) -> _T | None:
    """Call `do` with a descriptor of a process's directory in /proc; None if the process is gone.

    It stays with that very process: a later one of the same PID is never touched.
    """
    try:
        with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as here:
            return do(here)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise SubjectError(
            f"the memory of {path} cannot be looked at: {error.strerror}",
            host=HOST,
            remedy="run phaul as root",
        ) from error


@contextmanager
def _opened(path: str, flags: int, directory: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def _text(directory: int, name: str) -> str:
    with _opened(name, os.O_RDONLY, directory) as fd, open(fd, "rb", closefd=False) as file:
        return os.fsdecode(file.read())


async def dirty_rate(root_pid: int, seconds: float) -> float | None:
    """Bytes a second that the tree changes, measured for so long; None without soft-dirty.

    Raises SubjectError if the tree is gone or not ours.
    """
    meter = DirtyMeter(root_pid)
    if not await anyio.to_thread.run_sync(meter.start):
        return None
    await anyio.sleep(seconds)
    return await anyio.to_thread.run_sync(meter.stop)
