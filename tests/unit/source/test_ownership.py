"""Each step of the source's end: what is on the disk before its effect, and what undoes it."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.errors import CgroupError, LockUnavailable, ProtocolError, StateError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.protocol.settlement import Tree
from phaul.source import ownership as module
from phaul.source.ownership import Ledger, Ownership, end_rest, tree_left
from phaul.storage import journal as journal_module
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.proc import Proc
from phaul.subjects.process import Subject, examine
from tests.unit.conftest import running, state
from tests.unit.source.stopping import Lock, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
KEY = "0123456789abcdef" * 2


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[bytes]"]:
    """A root with two children."""
    command = ["sh", "-c", "sleep 600 & sleep 600 & echo; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def subject(tree: "subprocess.Popen[bytes]") -> Subject:
    return examine(tree.pid, "here")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Journal(tmp_path, SourceRecord), "k3v9", KEY)


@pytest.fixture
def lock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Lock:
    made = Lock(ledger.journal)
    monkeypatch.setattr(module, "TreeLock", lambda: made)
    return made


def on_disk(ledger: Ledger) -> SourceState | None:
    record = ledger.journal.read()
    return record.state if record is not None else None


async def locked(subject: Subject, ledger: Ledger | None, *, second_lock: bool = True) -> Ownership:
    made = Ownership(subject, ledger, second_lock=second_lock)
    made.freeze()
    await made.lock()
    return made


def kin(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def full(_path: Path, _data: bytes, *, sync: bool = True) -> None:
    raise OSError(28, "No space left on device")


async def test_the_lock_is_on_the_disk_before_it_is_taken(
    subject: Subject, ledger: Ledger, lock: Lock
) -> None:
    made = await locked(subject, ledger)
    assert lock.done == [("plan", None), ("take", SourceState.LOCKED)]
    assert made.state is SourceState.LOCKED
    record = ledger.journal.read()
    assert record is not None
    assert (record.id, record.key, record.root.pid) == ("k3v9", KEY, subject.pid)
    assert record.tree[0].pid == subject.pid
    assert {one.pid for one in record.tree[1:]} == set(kin(subject.pid))
    assert set(record.groups[0].pids) == {one.pid for one in record.tree}
    assert state(subject.pid) == "T"
    await made.back()


async def test_the_way_to_the_other_side(subject: Subject, ledger: Ledger, lock: Lock) -> None:
    made = await locked(subject, ledger)
    made.decide()
    assert on_disk(ledger) is SourceState.DECIDED
    await made.kill()
    assert made.state is SourceState.GONE
    await made.there()
    assert on_disk(ledger) is SourceState.THERE
    assert await made.tidy() == ()
    assert lock.done[-1] == ("kill", SourceState.THERE)
    assert await made.tidy() == ()
    assert len(lock.done) == 4


async def test_it_is_written_that_it_is_back_before_it_runs(
    subject: Subject, ledger: Ledger, lock: Lock
) -> None:
    made = await locked(subject, ledger)
    assert await made.back() == ()
    assert lock.done[-1] == ("give_back", SourceState.BACK)
    assert on_disk(ledger) is SourceState.BACK
    until(lambda: running(subject.pid))
    assert await made.back() == ()
    assert len(lock.done) == 3
    with pytest.raises(ProtocolError):
        made.decide()


async def test_back_before_anything_was_locked(subject: Subject, ledger: Ledger) -> None:
    made = Ownership(subject, ledger, second_lock=False)
    made.freeze()
    assert await made.back() == ()
    assert made.state is SourceState.BACK
    assert ledger.journal.read() is None


async def test_without_a_journal_the_lock_is_taken_and_given_back(
    subject: Subject, lock: Lock
) -> None:
    lock.journal = None
    made = await locked(subject, None)
    assert state(subject.pid) == "T"
    assert await made.back() == ()
    until(lambda: running(subject.pid))


async def test_a_lock_that_is_not_to_be_had(
    subject: Subject, ledger: Ledger, lock: Lock, caplog: pytest.LogCaptureFixture
) -> None:
    lock.fails["plan"] = LockUnavailable("no cgroups here")
    made = await locked(subject, ledger)
    assert made.state is SourceState.LOCKED
    assert "no cgroups here" in caplog.text
    record = ledger.journal.read()
    assert record is not None
    assert (record.state, record.groups) == (SourceState.LOCKED, ())


async def test_a_lock_that_fails_is_not_in_the_journal(
    subject: Subject, ledger: Ledger, lock: Lock, caplog: pytest.LogCaptureFixture
) -> None:
    lock.fails["take"] = CgroupError("it does not stand still")
    made = await locked(subject, ledger)
    assert "it does not stand still" in caplog.text
    record = ledger.journal.read()
    assert record is not None
    assert (record.state, record.groups) == (SourceState.LOCKED, ())
    assert await made.back() == ()
    assert [what for what, _ in lock.done] == ["plan", "take"]


async def test_a_journal_that_cannot_be_written_locks_nothing(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Ownership(subject, ledger, second_lock=True)
    made.freeze()
    monkeypatch.setattr(journal_module, "write_whole", full)
    with pytest.raises(StateError, match="No space left"):
        await made.lock()
    assert lock.done == [("plan", None)]
    assert made.state is SourceState.FREEZING
    # It runs on all the same; nothing is written that would have to be taken back.
    assert await made.back() == ()
    assert ledger.journal.read() is None
    until(lambda: running(subject.pid))


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if CRIU had stopped the tree."""
    monkeypatch.setattr(module, "_stands_still", lambda _pids: True)


@pytest.mark.usefixtures("traced")
async def test_what_is_written_beside_the_dump_changes_nothing_yet(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Ownership(subject, ledger, second_lock=True)
    made.freeze()
    at_home = anyio.Event()
    at_home.set()
    await made.get_ready(at_home)
    assert lock.done == [("plan", None)]
    assert on_disk(ledger) is SourceState.LOCKED
    assert running(subject.pid)
    monkeypatch.setattr(journal_module, "write_whole", full)  # nothing is left to be written
    await made.lock()
    assert lock.done == [("plan", None), ("take", SourceState.LOCKED)]


@pytest.mark.usefixtures("traced")
async def test_a_dump_that_fails_takes_back_what_was_written_beside_it(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is being written, by a thread that was abandoned, at that moment."""
    begun, go_on = threading.Event(), threading.Event()
    write = Journal.write

    def slow(self: Journal[SourceRecord], record: SourceRecord, *, sync: bool) -> SourceRecord:
        if record.state is SourceState.LOCKED:
            begun.set()
            assert go_on.wait(10)
        return write(self, record, sync=sync)

    monkeypatch.setattr(Journal, "write", slow)
    made = Ownership(subject, ledger, second_lock=True)
    made.freeze()
    async with anyio.create_task_group() as tasks:
        at_home = anyio.Event()
        at_home.set()
        tasks.start_soon(made.get_ready, at_home)
        await anyio.to_thread.run_sync(begun.wait)
        tasks.cancel_scope.cancel()
    threading.Timer(0.05, go_on.set).start()
    assert await made.back() == ()
    assert on_disk(ledger) is SourceState.BACK
    assert lock.done == [("plan", None)]
    assert running(subject.pid)


async def test_a_cancel_does_not_tear_the_lock_apart(
    subject: Subject, ledger: Ledger, lock: Lock
) -> None:
    made = Ownership(subject, ledger, second_lock=True)
    made.freeze()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await made.lock()
    assert [what for what, _ in lock.done] == ["plan", "take"]
    assert made.state is SourceState.LOCKED
    assert await made.back() == ()
    until(lambda: running(subject.pid))


async def test_on_a_disk_that_has_filled_up_it_is_back_by_what_was_laid_ready(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await locked(subject, ledger)
    monkeypatch.setattr(journal_module, "write_whole", full)
    failures = await made.back()
    assert ["No space left" in failure.what for failure in failures] == [True]
    assert lock.done[-1] == ("give_back", SourceState.BACK)
    until(lambda: running(subject.pid))


async def test_nothing_can_be_written_at_all(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs on: this phaul lives, and sees to it that the copy is given up."""
    made = await locked(subject, ledger)
    monkeypatch.setattr(journal_module, "write_whole", full)
    (ledger.journal.path.parent / ".back-journal.json").unlink()
    assert len(await made.back()) == 2
    until(lambda: running(subject.pid))
    assert lock.done[-1] == ("give_back", SourceState.LOCKED)


async def test_a_lock_that_cannot_be_given_back_is_told(
    subject: Subject, ledger: Ledger, lock: Lock
) -> None:
    made = await locked(subject, ledger)
    lock.fails["give_back"] = CgroupError("it is stuck")
    assert [failure.what for failure in await made.back()] == ["it is stuck"]
    assert on_disk(ledger) is SourceState.BACK
    os.killpg(subject.pid, signal.SIGCONT)


async def test_a_decision_that_cannot_be_written_is_none(
    subject: Subject, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the second lock only the journal tells a killed tree from one that CRIU let go."""
    made = await locked(subject, ledger, second_lock=False)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "write_whole", full)
        with pytest.raises(StateError):
            made.decide()
    assert (made.state, on_disk(ledger)) == (SourceState.LOCKED, SourceState.LOCKED)
    assert await made.back() == ()
    assert on_disk(ledger) is SourceState.BACK


async def test_under_the_lock_a_full_disk_keeps_nobody_from_the_decision(
    subject: Subject, ledger: Ledger, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await locked(subject, ledger)
    monkeypatch.setattr(journal_module, "write_whole", full)
    monkeypatch.setattr(journal_module, "_overwrite", lambda *_: False)  # a tree of 100 tasks
    made.decide()
    assert made.state is SourceState.DECIDED
    assert on_disk(ledger) is SourceState.LOCKED
    await made.kill()
    assert [what for what, _ in lock.done] == ["plan", "take", "send_kill"]


class TestGone:
    """After CRIU was told to kill."""

    async def test_nothing_is_left(self, subject: Subject, ledger: Ledger) -> None:
        made = await locked(subject, ledger, second_lock=False)
        made.decide()
        os.killpg(subject.pid, signal.SIGKILL)
        assert await made.gone()

    async def test_all_of_it_is_left(self, subject: Subject, ledger: Ledger) -> None:
        made = await locked(subject, ledger, second_lock=False)
        made.decide()
        assert not await made.gone()
        assert made.state is SourceState.DECIDED
        assert await made.back(whole=True) == ()
        assert on_disk(ledger) is SourceState.BACK
        until(lambda: running(subject.pid))

    async def test_the_root_is_gone(self, subject: Subject, ledger: Ledger) -> None:
        """CRIU has begun to kill: there is no way back, locked or not."""
        made = await locked(subject, ledger, second_lock=False)
        made.decide()
        children = kin(subject.pid)
        os.kill(subject.pid, signal.SIGKILL)
        assert await made.gone()
        until(lambda: not any(running(pid) for pid in children))


def incarnations(*pids: int) -> tuple[Incarnation, ...]:
    found = [Incarnation.of(pid) for pid in pids]
    return tuple(one for one in found if one is not None)


async def test_what_is_left_of_a_tree(tree: "subprocess.Popen[bytes]") -> None:
    first, second = kin(tree.pid)
    all_of_it = incarnations(tree.pid, first, second)
    assert tree_left(all_of_it) is Tree.WHOLE
    os.kill(first, signal.SIGKILL)
    while running(first):
        await anyio.sleep(0.01)
    assert tree_left(all_of_it) is Tree.ROOT
    os.kill(tree.pid, signal.SIGKILL)
    while running(tree.pid):
        await anyio.sleep(0.01)
    assert tree_left(all_of_it) is Tree.PART
    await end_rest(all_of_it, (), None)
    assert tree_left(all_of_it) is Tree.GONE


async def test_what_is_being_killed_counts_as_gone(
    tree: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may be long until it ends, but it is never again in its own code."""
    name, _, rest = Path(f"/proc/{tree.pid}/stat").read_text().rpartition(") ")
    fields = rest.split()
    fake = tmp_path / str(tree.pid) / "stat"
    fake.parent.mkdir()
    monkeypatch.setattr("phaul.subjects.proc.Proc", lambda: Proc(tmp_path))
    for pending, left in ((1 << 8, Tree.GONE), (~(1 << 8) & (1 << 31) - 1, Tree.WHOLE)):
        fields[28] = str(pending)
        fake.write_text(f"{name}) {' '.join(fields)}")
        assert tree_left(incarnations(tree.pid)) is left


async def test_another_with_the_same_pid_is_not_it(tree: "subprocess.Popen[bytes]") -> None:
    (one,) = incarnations(tree.pid)
    other = Incarnation(pid=one.pid, start=one.start - 1, boot=one.boot)
    assert tree_left((other,)) is Tree.GONE
    await end_rest((other,), (), None)
    assert running(tree.pid)
