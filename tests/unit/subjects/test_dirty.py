import os
import struct
import subprocess
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import SubjectError
from phaul.subjects.dirty import (
    DirtyMeter,
    count_dirty,
    dirty_rate,
    has_soft_dirty,
    whole_blocks,
)
from phaul.subjects.huge import HUGE_PAGE
from tests.unit.subjects.fake_proc import SMAPS, FakeProc

MARKED, FILE, SWAPPED, PRESENT = 1 << 55, 1 << 61, 1 << 62, 1 << 63
PAGE = os.sysconf("SC_PAGE_SIZE")
START = 0x10000


@given(st.lists(st.integers(0, (1 << 64) - 1) | st.sampled_from([MARKED | PRESENT, PRESENT])))
def test_count(entries: list[int]) -> None:
    wanted = sum(1 for e in entries if e & MARKED and e & (PRESENT | SWAPPED) and not e & FILE)
    assert count_dirty(struct.pack(f"<{len(entries)}Q", *entries)) == wanted


@given(st.binary(max_size=100))
def test_a_count_of_anything_is_no_trouble(data: bytes) -> None:
    assert 0 <= count_dirty(data) <= len(data) // 8 + 1


@given(st.integers(0, 600), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 2600), max_size=3))
def test_whole_blocks(before: int, blocks: set[int], holes: set[int]) -> None:
    entries = [PRESENT] * 4000
    for block in blocks:
        at = block * 512 + -before % 512
        entries[at : at + 512] = [MARKED | PRESENT] * 512
    for hole in holes:
        entries[hole] = MARKED | PRESENT | FILE
    found = whole_blocks(before * PAGE, struct.pack("<4000Q", *entries))
    at_pages = [(address - before * PAGE) // PAGE for address in found]
    wanted = [
        at
        for at in range(-before % 512, 4000 - 511, 512)
        if all(entry == MARKED | PRESENT for entry in entries[at : at + 512])
    ]
    assert at_pages == wanted
    assert all(address % HUGE_PAGE == 0 for address in found)


def memory(here: Path, entries: list[int], anonymous: int = 4, shared: str = "p") -> None:
    """A process with one mapping, of these pagemap entries."""
    (here / "smaps").write_text(
        SMAPS.format(
            start=START,
            end=START + len(entries) * PAGE,
            permissions="rw-" + shared,
            device="00:00",
            inode=0,
            path="",
            size=len(entries) * 4,
            anonymous=anonymous,
        )
    )
    with (here / "pagemap").open("wb") as file:
        file.seek(START // PAGE * 8)
        file.write(struct.pack(f"<{len(entries)}Q", *entries))
    (here / "clear_refs").write_text("")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(fake: FakeProc, clock: Clock) -> DirtyMeter:
    return DirtyMeter(10, fake.proc, clock, supported=lambda: True)


DIRTY = [MARKED | PRESENT, PRESENT, MARKED | SWAPPED, MARKED | PRESENT | FILE, 0]


def test_what_the_tree_changes_in_a_second(fake_proc: FakeProc, clock: Clock) -> None:
    for pid, parent, children in ((10, 1, (11,)), (11, 10, ()), (12, 1, ())):
        memory(fake_proc.process(pid, parent, children=children), DIRTY)
    made = meter(fake_proc, clock)
    assert made.start()
    touched = {p: (fake_proc.root / str(p) / "clear_refs").read_text() for p in (10, 11, 12)}
    assert touched == {10: "4", 11: "4", 12: ""}, "of the tree, and of nothing else"
    clock.now += 2
    assert made.stop() == 2 * 2 * PAGE / 2


@pytest.mark.parametrize(("anonymous", "shared"), [(0, "p"), (4, "s")])
def test_what_is_not_private_memory_does_not_count(
    fake_proc: FakeProc, clock: Clock, anonymous: int, shared: str
) -> None:
    memory(fake_proc.process(10), DIRTY, anonymous, shared)
    made = meter(fake_proc, clock)
    assert made.start()
    clock.now += 1
    assert made.stop() == 0


def test_one_that_was_born_meanwhile_counts_and_one_that_ended_does_not(
    fake_proc: FakeProc, clock: Clock
) -> None:
    memory(fake_proc.process(10, children=(11,)), DIRTY)
    memory(fake_proc.process(11, 10), DIRTY)
    made = meter(fake_proc, clock)
    made.start()
    clock.now += 1
    memory(fake_proc.process(10, children=(13,)), DIRTY)
    memory(fake_proc.process(13, 10), [MARKED | PRESENT] * 8)
    assert made.stop() == (2 + 8) * PAGE


def test_a_later_process_of_the_same_pid_is_not_touched(fake_proc: FakeProc, clock: Clock) -> None:
    memory(fake_proc.process(10, children=(11,)), DIRTY)
    memory(fake_proc.process(11, 1), DIRTY)  # said to be a child, but it is another's by now
    assert meter(fake_proc, clock).start()
    assert (fake_proc.root / "11" / "clear_refs").read_text() == ""


def test_the_huge_pages_that_were_written_to(fake_proc: FakeProc, clock: Clock) -> None:
    here = fake_proc.process(10)
    memory(here, [PRESENT] * 496 + [MARKED | PRESENT] * 512 + [PRESENT] * 3)
    made = meter(fake_proc, clock)
    made.start()
    clock.now += 2
    assert made.stop() == HUGE_PAGE / 2
    assert made.huge == [], "it has none"
    smaps = here / "smaps"
    smaps.write_text(smaps.read_text() + "AnonHugePages:      2048 kB\n")
    made.start()
    clock.now += 2
    assert made.stop() == HUGE_PAGE / 2
    assert made.huge == [(10, START + 496 * PAGE)]
    assert made.huge_rate == HUGE_PAGE / 2


def test_without_soft_dirty_nothing_is_touched(fake_proc: FakeProc, clock: Clock) -> None:
    memory(fake_proc.process(10), DIRTY)
    made = DirtyMeter(10, fake_proc.proc, clock, supported=lambda: False)
    assert not made.start()
    assert (fake_proc.root / "10" / "clear_refs").read_text() == ""
    assert made.stop() is None


def test_a_tree_that_is_gone(fake_proc: FakeProc, clock: Clock) -> None:
    with pytest.raises(SubjectError, match="process 10 has just ended"):
        meter(fake_proc, clock).start()


def test_one_that_ends_between_start_and_stop(fake_proc: FakeProc, clock: Clock) -> None:
    here = fake_proc.process(10)
    memory(here, DIRTY)
    made = meter(fake_proc, clock)
    made.start()
    here.rename(fake_proc.root / "gone")
    with pytest.raises(SubjectError, match="process 10 has just ended"):
        made.stop()


@pytest.mark.parametrize("mark", [True, False])
def test_the_kernel_is_asked_by_a_page_of_our_own(tmp_path: Path, mark: bool) -> None:
    entry = struct.pack("<Q", PRESENT | (MARKED if mark else 0))
    pagemap = tmp_path / "pagemap"

    def everywhere(_fd: int, size: int, _at: int) -> bytes:
        return entry[:size]

    pagemap.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", everywhere)
        assert has_soft_dirty(str(pagemap)) is mark
    assert not has_soft_dirty(str(pagemap)), "a page map that says nothing"
    assert not has_soft_dirty(str(tmp_path / "none"))


def test_the_rate_of_a_real_process_fits_the_kernel(victim: "subprocess.Popen[bytes]") -> None:
    rate = anyio.run(dirty_rate, victim.pid, 0.0)
    assert (rate is not None) == has_soft_dirty()
    assert victim.poll() is None
