"""The cutover: to raise lets the process run on, to return gives it up, and nothing in between."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from phaul import Criu, Event, Timeouts
from phaul.errors import CriuError, CutoverFailed, LockUnavailable, OutcomeUnknown, UsageError
from phaul.report import CutoverStarted, Held, RoundFinished, RoundStarted, SourceGone, Started
from phaul.subjects.lock import TreeLock
from tests.unit.conftest import Ends, running, state
from tests.unit.scenario import Dump, Fault

LOG = "(00.1) Error (criu/sk-inet.c:5): inet: Connected TCP socket, consider tcp-established\n"


@pytest.fixture(autouse=True)
def one_round(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),))


@pytest.fixture
def second_lock(ends: Ends) -> Path:
    """The directory of the victim's cgroup, where it can be locked."""
    lock = TreeLock()
    try:
        lock.available([ends.victim])
        home = lock.plan("x", [ends.victim])[0].home
    except LockUnavailable as error:
        pytest.skip(str(error))
    return lock.cgroups.point / home.lstrip("/")


def groups(folder: Path, victim: int) -> list[str]:
    return [path.name for path in folder.glob(f"phaul-{victim}.lock")]


def fail(ends: Ends, **changes: object) -> CutoverFailed:
    """The error of a migration that fails in the cutover and is undone."""
    with pytest.raises(CutoverFailed) as caught:
        ends.client(**changes).migrate()
    assert running(ends.victim)
    assert caught.value.fate == f"still running here, PID {ends.victim}"
    return caught.value


def test_raising_lets_it_run(ends: Ends) -> None:
    def work(criu: Criu) -> None:
        criu.dump()
        assert state(ends.victim) == "T"
        raise ValueError("no room there")

    ends.local.work = work
    error = fail(ends)
    assert "no room there" in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert [note.accepted for note in ends.source.notes("answer:post-dump")] == [False]
    assert ends.remote.calls == ["start", "stop"] * 2


def test_raising_before_the_dump(ends: Ends) -> None:
    def work(_criu: Criu) -> None:
        raise ValueError("not now")

    ends.local.work = work
    assert "not now" in str(fail(ends))
    assert "DUMP" not in ends.source.names()
    assert ends.remote.calls == ["start", "stop"] * 2


def test_returning_without_a_dump(ends: Ends) -> None:
    ends.local.work = lambda _criu: None
    assert "without a complete dump" in str(fail(ends))


def test_returning_nothing_kills_and_releases_nothing(ends: Ends) -> None:
    def work(criu: Criu) -> None:
        criu.dump()

    ends.local.work = work
    report = ends.client().migrate()
    assert state(ends.victim) == "Z"
    assert report.downtime.release_s == 0


def test_a_second_dump_is_refused(ends: Ends) -> None:
    def work(criu: Criu) -> None:
        criu.dump()
        with pytest.raises(UsageError, match="only once"):
            criu.dump()
        raise ValueError

    ends.local.work = work
    fail(ends)


def test_a_failing_dump(ends: Ends) -> None:
    ends.source.play(
        rounds=(Dump(pages_written=10),), final=Dump(fault=Fault(kind="fail", log=LOG))
    )
    error = fail(ends)
    assert "Connected TCP socket" in str(error)
    assert "use the option tcp_established" in str(error)
    assert ends.remote.calls == ["start", "stop"] * 2


def test_a_dump_without_a_hold(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(reach_post_dump=False))
    assert "without post-dump" in str(fail(ends))


def test_a_dump_that_hangs(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=Fault(kind="hang")))
    assert "within 0.3 s" in str(fail(ends, timeouts=Timeouts(dump=0.3)))


def swallow(criu: Criu) -> Callable[[], None] | None:
    """What a careless caller does: the failure of the dump is only noted."""
    try:
        criu.dump()
    except Exception as error:
        print(error)
    return None


def test_memory_that_did_not_arrive_which_the_caller_overlooks(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(unfounded=True))
    ends.local.work = swallow
    fail(ends)


def test_a_failed_dump_that_the_caller_overlooks(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=Fault(kind="fail")))
    ends.local.work = swallow
    fail(ends)


def test_memory_that_did_not_arrive(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(unfounded=True))
    error = fail(ends)
    assert "Can't write pages to socket" in str(error)
    assert "are said to be in the round before" in str(error)
    assert isinstance(error.__cause__, CriuError)


def test_a_failing_release(ends: Ends) -> None:
    def release() -> None:
        raise ConnectionError("gone")

    def work(criu: Criu) -> Callable[[], None]:
        ends.local.move(criu)
        return release

    ends.local.work = work
    with pytest.raises(OutcomeUnknown, match="gone") as caught:
        ends.client().migrate()
    assert "no longer here" in caught.value.fate
    assert caught.value.exit_code == 8
    assert state(ends.victim) == "Z"


@pytest.mark.parametrize("kind", ["fail", "signal"])
def test_criu_lets_it_go_instead_of_killing_it(ends: Ends, kind: str) -> None:
    """With no second lock it has run since, and so is this host's: the copy is never let go."""
    fault = Fault(kind=kind)  # type: ignore[arg-type]
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=fault, fault_at="released"))
    assert "did not give the process up" in str(fail(ends))
    assert not [step for step in ends.local.steps if step.startswith("release")]


@pytest.mark.parametrize("kind", ["fail", "signal"])
def test_under_the_second_lock_the_kill_is_finished(
    ends: Ends, second_lock: Path, kind: str
) -> None:
    """CRIU has let it go, but it stands still all the same: nothing has happened since the dump."""
    fault = Fault(kind=kind)  # type: ignore[arg-type]
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=fault, fault_at="released"))
    ends.client(second_lock=True).migrate()
    assert ends.local.steps[-1] == "release Z"
    assert running(ends.local.restored)
    assert groups(second_lock, ends.victim) == []


def test_the_second_lock_is_given_back_with_the_process(ends: Ends, second_lock: Path) -> None:
    seen: list[list[str]] = []

    def work(criu: Criu) -> None:
        criu.dump()
        seen.append(groups(second_lock, ends.victim))
        raise ValueError("no room there")

    ends.local.work = work
    fail(ends, second_lock=True)
    assert seen == [[f"phaul-{ends.victim}.lock"]]
    assert groups(second_lock, ends.victim) == []


def test_nothing_of_the_second_lock_is_left_of_a_move(ends: Ends, second_lock: Path) -> None:
    ends.client(second_lock=True).migrate()
    assert groups(second_lock, ends.victim) == []


def test_nothing_of_the_second_lock_is_left_of_a_failing_release(
    ends: Ends, second_lock: Path
) -> None:
    def release() -> None:
        raise ConnectionError("gone")

    def work(criu: Criu) -> Callable[[], None]:
        ends.local.move(criu)
        return release

    ends.local.work = work
    with pytest.raises(OutcomeUnknown):
        ends.client(second_lock=True).migrate()
    assert groups(second_lock, ends.victim) == []


def test_criu_dies_after_the_kill(ends: Ends) -> None:
    """What counts is that the process is gone from here."""
    fault = Fault(kind="signal")
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=fault, fault_at="killed"))
    ends.client().migrate()
    assert ends.local.steps[-1] == "release Z"
    assert running(ends.local.restored)


def test_missing_statistics_do_not_undo_a_commit(ends: Ends) -> None:
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(write_stats=False))
    report = ends.client().migrate()
    assert running(ends.local.restored)
    assert report.downtime.total_s > 0


class Objection(Exception):
    """What a raising event handler raises."""


@pytest.mark.parametrize(
    "kind", [Started, RoundStarted, RoundFinished, CutoverStarted, Held], ids=lambda k: k.__name__
)
def test_a_raising_event_handler(ends: Ends, kind: type[Event]) -> None:
    def object_to(event: Event) -> None:
        if isinstance(event, kind):
            raise Objection("I object")

    ends.on_event = object_to
    client = ends.client()
    with pytest.raises(Exception, match="I object"):
        client.migrate()
    assert running(ends.victim)
    assert ends.remote.calls.count("start") == ends.remote.calls.count("stop")
    # Both ends are as after any failure: another attempt works.
    ends.on_event = lambda _event: None
    client.new_chain(ends.fresh())
    client.migrate()
    assert running(ends.local.restored)


def test_a_handler_that_raises_when_the_source_is_gone(ends: Ends) -> None:
    def object_to(event: Event) -> None:
        if isinstance(event, SourceGone):
            raise Objection("too late")

    ends.on_event = object_to
    with suppress(OutcomeUnknown, Objection):
        ends.client().migrate()
    # It has no other place left to live in.
    assert ends.local.steps[-1] == "release Z"


def test_the_hold_ends_before_the_other_side_is_asked(ends: Ends) -> None:
    """A slow peer must not keep a process frozen whose dump has failed."""
    seen: list[bool] = []

    def look(name: str, count: int) -> None:
        if (name, count) == ("stop", 2):
            seen.append(running(ends.victim))

    ends.remote.before = look
    ends.source.play(rounds=(Dump(pages_written=10),), final=Dump(fault=Fault(kind="hang")))
    fail(ends, timeouts=Timeouts(dump=0.3))
    assert seen == [True]
