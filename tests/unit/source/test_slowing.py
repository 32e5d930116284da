"""A process that is slowed down gets its CPU time back on every way out, phaul's death included."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import anyio
import msgspec
import pytest

from phaul.errors import CgroupError, NotConverged, StateError
from phaul.report import Event, SlowedDown, SlowStep
from phaul.source import slowing as module
from phaul.source.owed import Owing
from phaul.source.slowing import Slowing
from phaul.storage.aftermath import OWED, is_open
from tests.unit.conftest import children
from tests.unit.source.slow import ROUND, FakeSlow

pytestmark = pytest.mark.anyio


@pytest.fixture
def process() -> Iterator[int]:
    """Somebody who sleeps."""
    with subprocess.Popen(["sleep", "100"]) as child:
        yield child.pid
        child.kill()


@pytest.fixture
def slow(process: int, tmp_path: Path) -> FakeSlow:
    return FakeSlow(process, tmp_path / OWED)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def slowing(process: int, tmp_path: Path, slow: FakeSlow, events: list[Event]) -> Slowing:
    return Slowing(process, "ab12", Owing(tmp_path), events.append, slow)


async def test_it_is_slowed_by_steps_and_given_back(
    slowing: Slowing, slow: FakeSlow, events: list[Event], tmp_path: Path
) -> None:
    await slowing.begin()
    await slowing.to(1.0, [ROUND])
    assert slow.done == []
    await slowing.to(0.5, [ROUND])
    assert slowing.share == pytest.approx(0.5)
    assert is_open(tmp_path), "it is not forgotten"
    await slowing.to(0.25, [ROUND, ROUND])
    await slowing.to(0.5, [ROUND, ROUND, ROUND])  # never up again
    # It used nothing, so it is limited to what the least is taken for.
    assert slow.done == ["take", "limit 1000 100000", "limit 1000 200000"]
    assert [(e.share, e.cpus) for e in events if isinstance(e, SlowedDown)] == [
        (0.5, 0.02),
        (0.25, 0.02),
    ]
    await slowing.give_back()
    assert slowing.share == pytest.approx(1)
    assert not slow.file.exists()
    await slowing.end()
    assert slow.done[3:] == ["give back"]
    report = slowing.report
    assert report is not None
    assert report.steps == (SlowStep(number=1, share=0.5), SlowStep(number=2, share=0.25))
    assert (report.share, report.given_back) == (0.25, True)
    assert not is_open(tmp_path)


async def test_what_it_used_is_what_it_is_limited_by(
    tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = FakeSlow(os.getpid(), tmp_path / OWED)
    used = iter(({os.getpid(): 10.0}, {os.getpid(): 13.0, 1: 1.0}))
    clock = iter((100.0, 104.5))
    monkeypatch.setattr(module, "spent", lambda _pids: next(used))
    # The first two are begin's and the take's; the event loop has a clock of its own.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock, 105.0)))
    slowing = Slowing(os.getpid(), "ab12", Owing(tmp_path), events.append, slow)
    await slowing.begin()
    await slowing.to(0.5, [msgspec.structs.replace(ROUND, frozen_s=0.5)])
    # 3 s, and 1 s of one that was born since, in 4 s that it ran: one processor.
    assert slow.done[-1] == "limit 10000 20000"
    await slowing.end()


@pytest.mark.parametrize("step", ["take", "limit"])
async def test_a_failure_is_given_back(slowing: Slowing, slow: FakeSlow, step: str) -> None:
    slow.refuses.add(step)
    await slowing.begin()
    with pytest.raises(CgroupError, match="is refused"):
        await slowing.to(0.5, [ROUND])
    assert slowing.share == 1.0
    before = children()
    await slowing.end()
    assert slow.done[-1] == "give back"
    assert not slow.file.exists()
    assert len(children()) == len(before) - 1, "the watcher is reaped"


async def test_nothing_is_done_that_cannot_be_written_down(
    process: int, tmp_path: Path, slow: FakeSlow, events: list[Event]
) -> None:
    slowing = Slowing(process, "ab12", Owing(tmp_path / "none"), events.append, slow)
    await slowing.begin()
    with pytest.raises(StateError, match="cannot be written"):
        await slowing.to(0.5, [ROUND])
    assert slow.done == []
    await slowing.end()


async def test_what_cannot_be_given_back_is_said_and_stays_written_down(
    slowing: Slowing, slow: FakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Owing, "_watch", lambda _self: None)  # it would try, too
    await slowing.begin()
    await slowing.to(0.5, [ROUND])
    slow.refuses.add("give")
    error = NotConverged("no")
    await slowing.end(error)
    assert "may still be slowed down" in error.__notes__[0]
    assert "phaul list" in error.__notes__[0]
    assert slow.file.exists()


async def test_a_cancel_does_not_tear_it_apart(slowing: Slowing, slow: FakeSlow) -> None:
    await slowing.begin()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await slowing.to(0.5, [ROUND])
    assert slow.done == ["take", "limit 1000 100000"]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await slowing.end()
    assert slow.done[-1] == "give back"


async def test_while_it_is_traced_it_is_not_limited(
    slowing: Slowing, slow: FakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slowing.ease()
    assert slow.done == [], "it is not slow yet"
    await slowing.begin()
    await slowing.to(0.5, [ROUND])
    traced = iter((False, False, True, True, False))
    monkeypatch.setattr(slowing, "_is_traced", lambda: next(traced))
    await slowing.ease()
    assert slow.done[2:] == ["lift", "limit 1000 100000"]
    await slowing.end()


async def test_once_it_is_given_back_it_is_not_limited_again(
    slowing: Slowing, slow: FakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slowing.begin()
    await slowing.to(0.5, [ROUND])
    monkeypatch.setattr(slowing, "_is_traced", lambda: True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slowing.ease)
        await anyio.wait_all_tasks_blocked()
        await slowing.give_back()
        tasks.cancel_scope.cancel()
    assert slow.done[2:] == ["lift", "give back"]
    await slowing.end()
