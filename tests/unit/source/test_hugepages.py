"""Huge pages are split for the rounds, or what they add is told; khugepaged goes on afterwards."""

import errno
import logging
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from phaul.errors import CutoverFailed, SubjectError
from phaul.report import Amplified, Event, HugePagesSplit, Round, Split
from phaul.source import hugepages as module
from phaul.source.hugepages import HugePages
from phaul.source.owed import Owing
from phaul.storage.aftermath import OWED, is_open
from phaul.subjects.huge import HUGE_PAGE, Piece
from phaul.subjects.khugepaged import WAITS_MS
from tests.unit.conftest import children
from tests.unit.source.slow import record
from tests.unit.subjects.fake_huge import FakeHuge

pytestmark = pytest.mark.anyio

MIB = 256
"""Pages."""
ROUND = Round(
    number=1, pages=64 * MIB, shared_pages=0, skipped_pages=0, frozen_s=0.001, seconds=0.1
)


@pytest.fixture
def host(tmp_path: Path) -> FakeHuge:
    """A tree of two, with 12 MiB in huge pages; of one that is no part of it there are more."""
    made = FakeHuge(tmp_path)
    made.process(10, (0x200000, 0xA00000, 4 * HUGE_PAGE), children=(11,))
    made.process(11, (0x400000, 0x800000, 2 * HUGE_PAGE))
    made.process(12, (0x400000, 0x800000, 2 * HUGE_PAGE))
    return made


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still: no look takes time, and none is followed by a rest."""
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def splitting(host: FakeHuge, tmp_path: Path, events: list[Event]) -> HugePages:
    return HugePages(
        10,
        events.append,
        owing=Owing(tmp_path),
        splitter=host.splitter,
        khugepaged=host.khugepaged,
    )


async def test_they_are_split_and_khugepaged_waits_until_the_end(
    splitting: HugePages, host: FakeHuge, events: list[Event], tmp_path: Path
) -> None:
    await splitting.begin()
    assert {piece.pid for piece in host.splitter.told} == {10, 11}
    assert events == [
        HugePagesSplit(split_bytes=6 * HUGE_PAGE, left_bytes=0, seconds=events[0].seconds)  # type: ignore[union-attr]
    ]
    assert host.khugepaged.pace() == WAITS_MS
    assert record(tmp_path / OWED).khugepaged_ms == 10_000
    assert is_open(tmp_path), "it is not forgotten"
    before = len(children())
    await splitting.end()
    assert host.khugepaged.pace() == 10_000
    assert not is_open(tmp_path)
    assert len(children()) == before - 1, "the watcher is reaped"
    report = splitting.report
    assert report is not None
    assert (report.split_bytes, report.given_back) == (6 * HUGE_PAGE, True)


async def test_where_there_are_none_nothing_is_changed(
    splitting: HugePages, host: FakeHuge, tmp_path: Path, events: list[Event]
) -> None:
    for pid, below in ((10, (11,)), (11, ())):
        host.process(pid, (0x200000, 0xA00000, 0), children=below)
    await splitting.begin()
    assert host.khugepaged.pace() == 10_000
    assert not is_open(tmp_path)
    await splitting.end()
    assert (events, splitting.report, host.splitter.told) == ([], None, [])


@pytest.mark.usefixtures("clock")
async def test_what_has_come_since_is_split_before_the_next_round(
    splitting: HugePages, host: FakeHuge
) -> None:
    await splitting.begin()
    await splitting.look()
    host.process(11, (0x400000, 0x800000, 2 * HUGE_PAGE))
    host.khugepaged.file.write_text("500\n")  # another phaul's end, say
    await splitting.look()
    assert host.khugepaged.pace() == WAITS_MS
    assert splitting.report == Split(split_bytes=8 * HUGE_PAGE, seconds=0.0, given_back=False)
    assert splitting.told(ROUND).huge_bytes == 2 * HUGE_PAGE, "it was sent whole once more"
    await splitting.look()
    assert splitting.told(ROUND).huge_bytes == 0
    await splitting.end()
    assert host.khugepaged.pace() == 500


async def test_what_is_in_use_is_tried_some_times(
    splitting: HugePages, host: FakeHuge, events: list[Event]
) -> None:
    host.stubborn = HUGE_PAGE
    await splitting.begin()
    (split,) = events
    assert isinstance(split, HugePagesSplit)
    assert (split.split_bytes, split.left_bytes) == (4 * HUGE_PAGE, 2 * HUGE_PAGE)
    await splitting.end()


async def test_nor_is_it_tried_for_long(
    splitting: HugePages, host: FakeHuge, clock: SimpleNamespace, events: list[Event]
) -> None:
    host.process(10, (0, 1 << 40, 4 * HUGE_PAGE))
    real = host.split

    def split(piece: Piece) -> None:
        clock.now += 20
        if piece.start > 1 << 30:
            real(piece)

    host.split = split  # type: ignore[method-assign]
    await splitting.begin()
    (said,) = events
    assert isinstance(said, HugePagesSplit)
    assert (said.split_bytes, said.left_bytes) == (0, 4 * HUGE_PAGE)
    assert len(host.splitter.told) == 2
    await splitting.end()


async def test_it_takes_little_of_the_time(
    splitting: HugePages, host: FakeHuge, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    async def look() -> None:
        looked.append(clock.now)
        clock.now += 0.5

    monkeypatch.setattr(splitting, "_look", look)
    for _ in range(30):
        await splitting.look()
        clock.now += 1.0
    assert len(looked) == 3
    assert all(later - sooner >= 0.5 * 21 for sooner, later in pairwise(looked))


async def test_what_cannot_be_written_down_is_not_changed(
    host: FakeHuge, tmp_path: Path, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    owing = Owing(tmp_path / "none")
    made = HugePages(
        10, events.append, owing=owing, splitter=host.splitter, khugepaged=host.khugepaged
    )
    with caplog.at_level(logging.WARNING, "phaul"):
        await made.begin()
    assert "cannot be written" in caplog.text
    assert host.khugepaged.pace() == 10_000
    assert host.splitter.told == []
    await made.end()


async def test_a_kernel_that_refuses_ends_nothing(
    splitting: HugePages, host: FakeHuge, caplog: pytest.LogCaptureFixture
) -> None:
    host.refuses = OSError(errno.EPERM, "Operation not permitted")
    with caplog.at_level(logging.WARNING, "phaul"):
        await splitting.begin()
    assert "does not split the huge pages of process 10" in caplog.text
    await splitting.end()
    assert host.khugepaged.pace() == 10_000


async def test_what_cannot_be_given_back_is_said_and_stays_written_down(
    splitting: HugePages, host: FakeHuge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Owing, "_watch", lambda _self: None)  # it would try, too
    await splitting.begin()

    def refuse(_self: object, _pace: int) -> None:
        raise SubjectError("it is refused")

    monkeypatch.setattr(type(host.khugepaged), "resume", refuse)
    error = CutoverFailed("no")
    await splitting.end(error)
    assert "khugepaged may still wait" in error.__notes__[0]
    assert "phaul list" in error.__notes__[0]
    assert (tmp_path / OWED).exists()
    report = splitting.report
    assert report is not None
    assert not report.given_back


@pytest.mark.usefixtures("clock")
async def test_what_they_add_is_told(host: FakeHuge, events: list[Event]) -> None:
    host.content(10, 0x200000, b"")
    made = HugePages(
        10,
        events.append,
        blocks=[(10, 0x200000)],
        can_split=True,
        splitter=host.splitter,
        khugepaged=host.khugepaged,
    )
    await made.begin()
    first = msgspec.structs.replace(ROUND, number=0)
    assert made.told(first) == first
    host.content(10, 0x200000, b"x" * 5000)
    await made.look()
    told = made.told(msgspec.structs.replace(ROUND, pages=16 * MIB))
    assert told.huge_bytes == 6 * HUGE_PAGE
    # 12 of 16 MiB are in huge pages, and one page in 256 of these was written.
    assert told.amplification == pytest.approx(16 / (4 + 12 / 256))
    small = made.told(msgspec.structs.replace(ROUND, pages=MIB))
    assert (small.huge_bytes, small.amplification) == (0, None), "none of it need be in one"
    for _ in range(2):
        made.tell(told)
    assert events == [
        Amplified(times=told.amplification or 0, huge_bytes=6 * HUGE_PAGE, can_split=True)
    ]
    assert host.splitter.told == []
    await made.end()
    assert made.report is None


@pytest.mark.usefixtures("clock")
async def test_without_a_sample_the_most_is_told(host: FakeHuge, events: list[Event]) -> None:
    made = HugePages(10, events.append, splitter=host.splitter, khugepaged=host.khugepaged)
    await made.begin()
    told = made.told(ROUND)
    assert (told.huge_bytes, told.amplification) == (6 * HUGE_PAGE, None)
    made.tell(told)
    assert events == []


async def test_a_tree_that_is_gone_has_none(events: list[Event], host: FakeHuge) -> None:
    made = HugePages(
        99999, events.append, owing=Owing(Path(os.devnull)), splitter=host.splitter,
        khugepaged=host.khugepaged,
    )  # fmt: skip
    await made.begin()
    assert events == []
