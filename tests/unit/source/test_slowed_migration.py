"""Whole migrations that are slowed down on their way, with a fake CRIU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from phaul.errors import Cancelled, CutoverFailed, NotConverged, RoundFailed
from phaul.policy import StopReason, Verdict
from phaul.report import Event, Round, SlowedDown, SlowStep
from phaul.source import Cutover, Release, SourceSession
from phaul.source.owed import Owing
from phaul.source.slowing import Slowing
from phaul.storage.aftermath import OWED
from tests.unit.conftest import Ends, running
from tests.unit.scenario import Dump, Fault
from tests.unit.source.remote import Remote
from tests.unit.source.slow import FakeSlow

pytestmark = pytest.mark.anyio


class Steps:
    """A judge that wants it slower after the first round, and no more rounds after the second."""

    share = 1.0
    leaves = False

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        self.share = 0.5
        verdict = Verdict(StopReason.TARGET, "it is enough") if len(rounds) > 1 else None
        return rounds[-1], verdict


class Local:
    """Looks at what was given back when the tree is dumped; raises `error`, if there is one."""

    def __init__(self, slow: FakeSlow, error: Exception | None = None) -> None:
        self.slow = slow
        self.error = error
        self.seen: list[str] = []

    async def dump_copy_restore(self, cutover: Cutover) -> Release | None:
        assert not [word for word in self.slow.done if word == "give back"]
        await cutover.dump()
        self.seen = list(self.slow.done)
        if self.error is not None:
            raise self.error
        return None


@dataclass(frozen=True)
class Moved:
    """A migration that is going to be slowed down after its first round."""

    session: SourceSession
    local: Local
    slow: FakeSlow
    events: list[Event]


def moved(ends: Ends, tmp_path: Path, error: Exception | None = None) -> Moved:
    slow = FakeSlow(ends.victim, tmp_path / OWED)
    events: list[Event] = []
    local = Local(slow, error)
    session = SourceSession(
        ends.config,
        local,
        Remote(ends),
        events.append,
        judge=Steps(),
        slowing=Slowing(ends.victim, "ab12", Owing(tmp_path), events.append, slow),
    )
    return Moved(session, local, slow, events)


async def test_it_has_its_cpu_time_back_before_criu_looks_at_its_groups(
    ends: Ends, tmp_path: Path
) -> None:
    made = moved(ends, tmp_path)
    ends.source.play(rounds=(Dump(), Dump()))
    report = await made.session.migrate()
    assert made.local.seen[-1] == "give back"
    assert [one.share for one in report.rounds] == [1, 0.5]
    assert report.slowdown is not None
    assert report.slowdown.given_back
    assert report.slowdown.steps == (SlowStep(number=1, share=0.5),)
    assert [type(event).__name__ for event in made.events if isinstance(event, SlowedDown)]
    assert not made.slow.file.exists()


async def test_a_cutover_that_fails_has_given_it_back(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path, ValueError("no room there"))
    ends.source.play(rounds=(Dump(), Dump()))
    with pytest.raises(CutoverFailed, match="no room there"):
        await made.session.migrate()
    assert made.slow.done[-1] == "give back"
    assert running(ends.victim)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_round_that_ends_while_it_is_slow(ends: Ends, tmp_path: Path, how: str) -> None:
    made = moved(ends, tmp_path)
    fault = Fault(kind="fail") if how == "fails" else Fault(kind="hang")
    ends.source.play(rounds=(Dump(), Dump(fault=fault)))
    async with anyio.create_task_group() as tasks:

        async def cancel() -> None:
            while len(ends.source.notes("SINGLE_PRE_DUMP")) < 2:
                await anyio.sleep(0.01)
            made.session.canceller.request()

        if how != "fails":
            tasks.start_soon(cancel)
        with pytest.raises((RoundFailed, Cancelled)):
            await made.session.migrate()
    assert made.slow.done[:2] == ["take", "limit 1000 100000"]
    assert made.slow.done[-1] == "give back"
    assert not made.slow.file.exists()
    assert running(ends.victim)


async def test_what_cannot_be_slowed_down_does_not_converge(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path)
    made.slow.refuses.add("take")
    ends.source.play(rounds=(Dump(), Dump()))
    with pytest.raises(NotConverged, match="cannot be slowed down: take is refused") as caught:
        await made.session.migrate()
    assert caught.value.fate == f"still running here, PID {ends.victim}"
    assert made.slow.done == ["take", "give back"]


async def test_what_cannot_be_given_back_is_not_dumped(ends: Ends, tmp_path: Path) -> None:
    made = moved(ends, tmp_path)
    made.slow.refuses.add("give")
    ends.source.play(rounds=(Dump(), Dump()))
    with pytest.raises(CutoverFailed, match="give back is refused"):
        await made.session.migrate()
    assert [note.accepted for note in ends.source.notes("answer:query-ext-files")] == [False]
    assert running(ends.victim)
