"""A process that is slowed down gets its CPU time back on every way out, phaul's death included."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import anyio
import msgspec
import pytest

from phaul.errors import CgroupError, NotConverged, StateError
from phaul.incarnation import Incarnation
from phaul.report import Event, SlowedDown, SlowStep
from phaul.source import slowing as module
from phaul.source.slowing import Slowed, Slowing, give_back_left
from phaul.storage.aftermath import SLOWED, is_open
from phaul.subjects.slow import SlowedGroup
from tests.unit.conftest import children
from tests.unit.source.slow import HOME, ROUND, FakeSlow

pytestmark = pytest.mark.anyio


@pytest.fixture
def process() -> Iterator[int]:
    """Somebody who sleeps."""
    with subprocess.Popen(["sleep", "100"]) as child:
        yield child.pid
        child.kill()


@pytest.fixture
def slow(process: int, tmp_path: Path) -> FakeSlow:
    return FakeSlow(process, tmp_path / SLOWED)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def slowing(process: int, tmp_path: Path, slow: FakeSlow, events: list[Event]) -> Slowing:
    return Slowing(process, "ab12", tmp_path, events.append, slow)


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
    slow = FakeSlow(os.getpid(), tmp_path / SLOWED)
    used = iter(({os.getpid(): 10.0}, {os.getpid(): 13.0, 1: 1.0}))
    clock = iter((100.0, 104.5))
    monkeypatch.setattr(module, "spent", lambda _pids: next(used))
    # The first two are begin's and the take's; the event loop has a clock of its own.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock, 105.0)))
    slowing = Slowing(os.getpid(), "ab12", tmp_path, events.append, slow)
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
    slowing = Slowing(process, "ab12", tmp_path / "none", events.append, slow)
    await slowing.begin()
    with pytest.raises(StateError, match="cannot be written"):
        await slowing.to(0.5, [ROUND])
    assert slow.done == []
    await slowing.end()


async def test_what_cannot_be_given_back_is_said_and_stays_written_down(
    slowing: Slowing, slow: FakeSlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowing, "_watch", lambda: None)  # it would try, too
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


def left(file: Path, **changes: object) -> Slowed:
    """A record of a phaul that has died, in this boot."""
    me = Incarnation.of(os.getpid())
    assert me is not None
    dead = msgspec.structs.replace(me, start=me.start + 1, **changes)
    group = SlowedGroup(group=HOME, home=HOME, before="max 100000", ours=("1000 20000",))
    found = Slowed(phaul=dead, groups=(group,))
    file.write_bytes(msgspec.json.encode(found))
    return found


def test_the_next_phaul_gives_back_what_one_that_died_has_left(slow: FakeSlow) -> None:
    left(slow.file)
    assert give_back_left(slow.file, slow)
    assert slow.done == ["give back"]
    assert not slow.file.exists()
    assert not give_back_left(slow.file, slow)


def test_but_not_before_it_is_dead(slow: FakeSlow) -> None:
    me = Incarnation.of(os.getpid())
    assert me is not None
    slow.file.write_bytes(msgspec.json.encode(Slowed(phaul=me, groups=())))
    assert not give_back_left(slow.file, slow)
    assert slow.done == []
    assert give_back_left(slow.file, slow, orphaned=True)


def test_after_a_reboot_there_is_nothing_to_give_back(slow: FakeSlow) -> None:
    left(slow.file, boot="another")
    assert not give_back_left(slow.file, slow)
    assert slow.done == []
    assert not slow.file.exists()


def test_what_fails_stays_written_down(slow: FakeSlow) -> None:
    left(slow.file)
    slow.refuses.add("give")
    with pytest.raises(CgroupError):
        give_back_left(slow.file, slow)
    assert slow.file.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"phaul": 1}', "[" * 100_000])
def test_a_damaged_record_is_said(slow: FakeSlow, text: str) -> None:
    slow.file.write_text(text)
    with pytest.raises(StateError, match=r"slowed\.json cannot be read"):
        give_back_left(slow.file, slow)


def test_the_watcher_waits_for_the_end_of_its_pipe(tmp_path: Path) -> None:
    file = tmp_path / SLOWED
    left(file, boot="another")
    argv = [sys.executable, "-P", "-m", "phaul.source.watcher", str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as watcher:
        assert watcher.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(0.3)
        assert file.exists()
        watcher.stdin.close()
        assert watcher.wait(30) == 0
    assert not file.exists()
