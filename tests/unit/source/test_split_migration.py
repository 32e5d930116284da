"""Whole migrations whose huge pages are split, with a fake CRIU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from phaul.errors import CutoverFailed, RoundFailed
from phaul.policy import StopReason, Verdict
from phaul.report import Event, HugePagesSplit, Round, RoundStarted
from phaul.source import Cutover, Release, SourceSession
from phaul.source.hugepages import HugePages
from phaul.source.owed import Owing
from phaul.storage.aftermath import OWED
from phaul.subjects.huge import HUGE_PAGE
from phaul.subjects.khugepaged import WAITS_MS
from tests.unit.conftest import Ends, running
from tests.unit.scenario import Dump, Fault
from tests.unit.source.remote import Remote
from tests.unit.subjects.fake_huge import FakeHuge

pytestmark = pytest.mark.anyio


class Twice:
    """A judge that wants two rounds."""

    share = 1.0
    leaves = False

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        verdict = Verdict(StopReason.TARGET, "it is enough") if len(rounds) > 1 else None
        return rounds[-1], verdict


class Local:
    """Looks whether khugepaged waits when the tree has been dumped; raises `error`, if any."""

    def __init__(self, host: FakeHuge, error: Exception | None) -> None:
        self.host = host
        self.error = error

    async def dump_copy_restore(self, cutover: Cutover) -> Release | None:
        await cutover.dump()
        assert self.host.khugepaged.pace() == WAITS_MS
        if self.error is not None:
            raise self.error
        return None


@dataclass(frozen=True)
class Moved:
    """A migration of a process with two huge pages."""

    session: SourceSession
    host: FakeHuge
    events: list[Event]
    file: Path


def moved(ends: Ends, tmp_path: Path, error: Exception | None = None) -> Moved:
    host = FakeHuge(tmp_path / "host")
    host.process(ends.victim, (0x200000, 0x600000, 2 * HUGE_PAGE))
    events: list[Event] = []
    huge = HugePages(
        ends.victim,
        events.append,
        owing=Owing(tmp_path),
        splitter=host.splitter,
        khugepaged=host.khugepaged,
    )
    session = SourceSession(
        ends.config,
        Local(host, error),
        Remote(ends),
        events.append,
        judge=Twice(),
        huge=huge,
    )
    return Moved(session, host, events, tmp_path / OWED)


def given_back(made: Moved) -> bool:
    return made.host.khugepaged.pace() == 10_000 and not made.file.exists()


async def test_they_are_split_before_the_first_round(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path)
    ends.source.play(rounds=(Dump(), Dump()))
    report = await made.session.migrate()
    kinds = [e for e in made.events if isinstance(e, HugePagesSplit | RoundStarted)]
    assert [type(e) for e in kinds] == [HugePagesSplit, RoundStarted, RoundStarted]
    assert report.split is not None
    assert (report.split.split_bytes, report.split.given_back) == (2 * HUGE_PAGE, True)
    assert given_back(made)


async def test_a_cutover_that_fails_has_given_back(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path, ValueError("no room there"))
    ends.source.play(rounds=(Dump(), Dump()))
    with pytest.raises(CutoverFailed, match="no room there"):
        await made.session.migrate()
    assert given_back(made)
    assert running(ends.victim)


async def test_so_has_a_round_that_fails(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path)
    ends.source.play(rounds=(Dump(), Dump(fault=Fault(kind="fail"))))
    with pytest.raises(RoundFailed):
        await made.session.migrate()
    assert given_back(made)
    assert running(ends.victim)
