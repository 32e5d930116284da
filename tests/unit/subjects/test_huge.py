"""Huge pages are found and split, mapping by mapping, whatever the process does meanwhile."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import SubjectError
from phaul.subjects.huge import HUGE_PAGE, Piece, Splitter, huge_bytes, pieces
from phaul.subjects.memory import parse_smaps
from tests.unit.subjects.fake_huge import FakeHuge

PAGE = 4096
MOST = 64 << 20
MAPPINGS = st.lists(
    st.tuples(st.integers(0, 1 << 10), st.integers(1, 1 << 16), st.booleans()), max_size=20
)
"""The gap before each, its length in pages, and whether it has huge pages."""


@given(MAPPINGS)
def test_the_pieces_are_the_mappings_with_huge_pages(
    mappings: list[tuple[int, int, bool]],
) -> None:
    text, at, wanted = "", 0x10000, []
    for gap, length, huge in mappings:
        start = at + gap * PAGE
        at = start + length * PAGE
        text += f"{start:x}-{at:x} rw-p 00000000 00:00 0 \nAnonHugePages: {2048 * huge} kB\n"
        if huge:
            wanted.append((start, at))
    found = list(pieces(7, parse_smaps(text)))
    for piece in found:
        # Never past the end of a mapping: the kernel stops at the first gap.
        assert any(start <= piece.start < piece.end <= end for start, end in wanted)
        assert piece.end - piece.start <= MOST
        assert piece.pid == 7
        # No huge page lies in two pieces.
        assert piece.end % HUGE_PAGE == 0 or any(piece.end == end for _, end in wanted)
    assert sum(p.end - p.start for p in found) == sum(end - start for start, end in wanted)
    assert [p.start for p in found] == sorted({p.start for p in found})


@given(st.text(max_size=300))
def test_any_text_has_some_pieces_or_none(text: str) -> None:
    assert all(piece.start < piece.end for piece in pieces(7, parse_smaps(text)))


def test_an_order_is_as_the_kernel_reads_it() -> None:
    assert str(Piece(7, 0x7F0000000000, 0x7F0000200000)) == "7,0x7f0000000000,0x7f0000200000"


@pytest.fixture
def host(tmp_path: Path) -> FakeHuge:
    made = FakeHuge(tmp_path)
    made.process(10, (0x200000, 0x800000, 3 * HUGE_PAGE), (0x900000, 0x901000, 0))
    made.process(11, (0x400000, 0x600000, HUGE_PAGE))
    return made


def test_how_much_is_in_huge_pages(host: FakeHuge) -> None:
    assert huge_bytes([10, 11, 99], host.fake.proc) == 4 * HUGE_PAGE
    (host.fake.root / "11" / "smaps_rollup").write_text("")  # a zombie's
    assert huge_bytes([10, 11], host.fake.proc) == 3 * HUGE_PAGE


def test_all_of_a_tree_is_split(host: FakeHuge) -> None:
    found = host.splitter.pieces([10, 11, 99])
    assert found == [Piece(10, 0x200000, 0x800000), Piece(11, 0x400000, 0x600000)]
    for piece in found:
        host.splitter.split(piece)
    assert huge_bytes([10, 11], host.fake.proc) == 0


def test_who_is_gone_meanwhile_has_none(host: FakeHuge) -> None:
    host.splitter.split(Piece(99, 0x200000, 0x400000))
    host.refuses = OSError(errno.EINVAL, "Invalid argument")
    (host.fake.root / "11" / "maps").write_text("")  # it has ended, and is not reaped yet
    host.splitter.split(Piece(11, 0x400000, 0x600000))


def test_what_the_kernel_refuses_is_said(host: FakeHuge) -> None:
    host.refuses = OSError(errno.EPERM, "Operation not permitted")
    with pytest.raises(SubjectError, match="process 10: Operation not permitted"):
        host.splitter.split(Piece(10, 0x200000, 0x400000))


def test_whether_it_can_be_is_asked_without_splitting_anything(tmp_path: Path) -> None:
    file = tmp_path / "split_huge_pages"
    file.touch()
    Splitter(debugfs=tmp_path).available()
    assert file.read_text() == f"{os.getpid()},0x0,0x0"


def test_debugfs_is_not_mounted(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SubjectError, match="debugfs is not mounted") as caught:
            Splitter(debugfs=folder).available()
        assert f"mount -t debugfs none {folder}" in caught.value.remedy


def test_this_kernel_has_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "sched").mkdir()
    with pytest.raises(SubjectError, match="does not split huge pages") as caught:
        Splitter(debugfs=tmp_path).available()
    assert "CONFIG_DEBUG_FS" in caught.value.remedy
    assert not (tmp_path / "split_huge_pages").exists(), "it is not made"


@pytest.mark.parametrize(
    ("number", "said", "remedy"),
    [
        (errno.EPERM, "may not be written", "lockdown"),
        (errno.EACCES, "may not be written", "as root"),
        (errno.EINVAL, "does not take a process", "5.13"),
    ],
)
def test_this_kernel_refuses(host: FakeHuge, number: int, said: str, remedy: str) -> None:
    host.refuses = OSError(number, os.strerror(number))
    with pytest.raises(SubjectError, match=said) as caught:
        host.splitter.available()
    assert remedy in caught.value.remedy
    assert "leave out --split-huge-pages" in caught.value.remedy
