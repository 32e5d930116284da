"""The transparent huge pages of a tree: how much is in them, and that they are split.

Used on the source, before the rounds of a pre-copy, while the process runs.  The kernel marks what
is written by entries of the page tables: of a huge page all 2 MiB at once.  Its
`split_huge_pages`, in debugfs, takes `PID,0xSTART,0xEND` and leaves the contents as they are; it
holds off who maps memory meanwhile, and stops at the first gap.  So it is told one mapping at a
time, and a large one in pieces.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from phaul.errors import SubjectError
from phaul.subjects.memory import Area, read_areas
from phaul.subjects.proc import HOST, Proc, parse_status

__all__ = ["HUGE_PAGE", "Piece", "Splitter", "huge_bytes", "pieces"]

HUGE_PAGE: Final = 2 << 20
_PIECE: Final = 64 << 20
"""So much of a mapping at once: nobody maps memory in that process meanwhile."""
_DEBUGFS: Final = Path("/sys/kernel/debug")
_FILE: Final = "split_huge_pages"
_LEAVE_OUT: Final = "or leave out --split-huge-pages"


@dataclass(frozen=True)
class Piece:
    """A part of a process's memory, from `start` to before `end`."""

    pid: int
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.pid},0x{self.start:x},0x{self.end:x}"


def pieces(pid: int, areas: Iterable[Area]) -> Iterator[Piece]:
    """What is to be split of a process: its mappings that have huge pages, in pieces."""
    for area in areas:
        if not area.kib.get("AnonHugePages", 0):
            continue
        at = area.start
        while at < area.end:
            end = min(at - at % _PIECE + _PIECE, area.end)
            yield Piece(pid, at, end)
            at = end


def huge_bytes(pids: Iterable[int], proc: Proc) -> int:
    """How many bytes of these processes are in huge pages; those that are gone have none.

    The kernel walks their page tables for it, without stopping them: natively 50 ms for a GiB in
    small pages, and 1 ms for one in huge pages.
    """
    total = 0
    for pid in pids:
        words = parse_status(proc.text(pid, "smaps_rollup") or "").get("AnonHugePages", "").split()
        total += int(words[0]) << 10 if words and words[0].isdecimal() else 0
    return total


@dataclass(frozen=True)
class Splitter:
    """Splits huge pages of this host; another /proc and another debugfs are for tests."""

    proc: Proc = field(default_factory=Proc)
    debugfs: Path = _DEBUGFS

    def available(self) -> None:
        """Raise SubjectError, with the reason and the remedy, if it could not be done now.

        The kernel is told to split nothing, of this very process.
        """
        file = self.debugfs / _FILE
        try:
            self._tell(Piece(os.getpid(), 0, 0))
        except FileNotFoundError as error:
            if self._is_mounted():
                raise SubjectError(
                    f"there is no {file}: this kernel does not split huge pages on demand",
                    host=HOST,
                    remedy="boot a kernel with CONFIG_DEBUG_FS and CONFIG_TRANSPARENT_HUGEPAGE, "
                    + _LEAVE_OUT,
                ) from error
            raise SubjectError(
                f"there is no {file}: debugfs is not mounted",
                host=HOST,
                remedy=f"`mount -t debugfs none {self.debugfs}`, {_LEAVE_OUT}",
            ) from error
        except PermissionError as error:
            raise SubjectError(
                f"{file} may not be written",
                host=HOST,
                remedy=f"run phaul as root, without a lockdown of the kernel, {_LEAVE_OUT}",
            ) from error
        except OSError as error:
            raise SubjectError(
                f"{file} does not take a process: {error.strerror}",
                host=HOST,
                remedy=f"boot Linux 5.13 or newer, {_LEAVE_OUT}",
            ) from error

    def pieces(self, pids: Iterable[int]) -> list[Piece]:
        """What is to be split now of these processes; those that are gone have nothing."""
        return [piece for pid in pids for piece in pieces(pid, read_areas(pid, self.proc))]

    def split(self, piece: Piece) -> None:
        """Split the huge pages of a piece; blocks for some milliseconds.

        What is not there any more, a mapping or the whole process, has none.  A page that somebody
        is just using may stay.  Raises SubjectError if the kernel takes no more.
        """
        try:
            self._tell(piece)
        except OSError as error:
            # ESRCH: it is gone; EINVAL: its memory is.
            if self.proc.text(piece.pid, "maps"):
                raise SubjectError(
                    f"the kernel does not split the huge pages of process {piece.pid}: "
                    f"{error.strerror}",
                    host=HOST,
                    remedy="leave out --split-huge-pages",
                ) from error

    def _tell(self, piece: Piece) -> None:
        # One write is one order; nothing is made where there is nothing.
        file = os.open(self.debugfs / _FILE, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, str(piece).encode())
        finally:
            os.close(file)

    def _is_mounted(self) -> bool:
        try:
            return any(self.debugfs.iterdir())
        except OSError:
            return False
