"""A host with huge pages made of files: a /proc, a /sys and a debugfs that does what it is told."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phaul.subjects.huge import HUGE_PAGE, Piece, Splitter
from phaul.subjects.khugepaged import Khugepaged
from tests.unit.subjects.fake_proc import FakeProc

__all__ = ["FakeHuge", "FakeKhugepaged", "FakeSplitter"]

_SMAPS = """\
{start:x}-{end:x} rw-p 00000000 00:00 0
Pss:                 {size} kB
Anonymous:           {size} kB
AnonHugePages:       {huge} kB
VmFlags: rd wr mr mw me ac sd hg
"""


class FakeKhugepaged(Khugepaged):
    """One whose pace is a file."""

    @classmethod
    def at(cls, sys: Path, pace: int = 10_000) -> "FakeKhugepaged":
        """One of this pace."""
        made = cls(sys)
        made.file.parent.mkdir(parents=True)
        made.file.write_text(f"{pace}\n")
        return made

    def _set(self, pace: int) -> None:
        self.file.write_text("")  # a file of /sys has no length
        super()._set(pace)


@dataclass(frozen=True)
class FakeSplitter(Splitter):
    """Splits what `host` has in huge pages, and writes down the orders."""

    host: "FakeHuge | None" = None
    told: list[Piece] = field(default_factory=list)

    def _tell(self, piece: Piece) -> None:
        self.told.append(piece)
        assert self.host is not None
        self.host.split(piece)


class FakeHuge:
    """A host; `memory` gives a process a mapping."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.fake = FakeProc(root / "proc")
        self.khugepaged = FakeKhugepaged.at(root / "sys")
        self.splitter = FakeSplitter(self.fake.proc, root / "debug", self)
        self.areas: dict[int, list[tuple[int, int, int]]] = {}
        self.stubborn = 0
        """So many bytes of a process stay in huge pages."""
        self.refuses: OSError | None = None

    def process(self, pid: int, *areas: tuple[int, int, int], children: Iterable[int] = ()) -> None:
        """A process; its mappings are (start, end, bytes in huge pages)."""
        self.fake.process(pid, children=tuple(children))
        self.areas[pid] = list(areas)
        self._write(pid)

    def split(self, piece: Piece) -> None:
        """What the kernel does with an order."""
        if self.refuses is not None:
            raise self.refuses
        if piece.start == piece.end:
            return
        if piece.pid not in self.areas:
            raise ProcessLookupError
        self.areas[piece.pid] = [
            (start, end, min(huge, self.stubborn) if start <= piece.start < end else huge)
            for start, end, huge in self.areas[piece.pid]
        ]
        self._write(piece.pid)

    def content(self, pid: int, address: int, data: bytes) -> None:
        """What its memory holds."""
        file = self.fake.root / str(pid) / "mem"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(fd, data.ljust(HUGE_PAGE, b"\0"), address)
        finally:
            os.close(fd)

    def _write(self, pid: int) -> None:
        here = self.fake.root / str(pid)
        areas = self.areas[pid]
        texts = (
            _SMAPS.format(start=start, end=end, size=(end - start) >> 10, huge=huge >> 10)
            for start, end, huge in areas
        )
        (here / "smaps").write_text("".join(texts))
        (here / "maps").write_text("some\n")
        huge = sum(huge for _, _, huge in areas)
        (here / "smaps_rollup").write_text(f"0-1 [rollup]\nAnonHugePages: {huge >> 10} kB\n")
