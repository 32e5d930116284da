"""A migration that was torn apart is settled between a journal here and a real agent there."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from phaul.destination.agent import run_agent
from phaul.errors import ConnectFailed, ConnectionLost, OutcomeUnknown, PhaulError
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m
from phaul.protocol.ownership import DestinationState, SourceState
from phaul.protocol.settlement import Copy, Tree, Verdict
from phaul.source.ownership import tree_left
from phaul.source.resolution import Resolution
from phaul.storage.journal import Journal, SourceRecord
from phaul.transport.base import SourceEnd
from phaul.transport.caller import Caller
from phaul.transport.local import LocalSource, local_ends
from tests.unit.conftest import Fake, running
from tests.unit.destination.dead import left_behind
from tests.unit.protocol.samples import KEY
from tests.unit.scenario import Fault

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
S, D = SourceState, DestinationState


@dataclass
class Torn:
    """Both hosts of a torn migration; `connects` counts the connections."""

    fake: Fake
    base: Path
    journal: Journal[SourceRecord]
    root: Incarnation
    resolution: Resolution
    connects: int = 0

    def here(self, state: SourceState, *, tree: bool = True) -> None:
        record = SourceRecord(
            id="m-7f3a", key=KEY, state=state, root=self.root, tree=(self.root,) if tree else ()
        )
        self.journal.write(record, sync=False)

    def gone(self) -> None:
        os.kill(self.root.pid, signal.SIGKILL)
        while running(self.root.pid):
            pass

    @property
    def record(self) -> SourceRecord:
        found = self.journal.read()
        assert found is not None
        return found

    def there(self) -> list[Path]:
        return list(self.base.iterdir()) if self.base.exists() else []

    def restored(self) -> list[int]:
        return [note.pid for note in self.fake.notes("restored") if running(note.pid)]


@pytest.fixture
def torn(fake: Fake, tmp_path: Path, victim: "subprocess.Popen[bytes]") -> Torn:
    root = Incarnation.of(victim.pid)
    assert root is not None
    folder = tmp_path / "m-7f3a"
    folder.mkdir()
    resolution = Resolution("m-7f3a", folder, root, None, "host2")
    made = Torn(fake, tmp_path / "in", Journal(folder, SourceRecord), root, resolution)

    @asynccontextmanager
    async def connect() -> AsyncIterator[LocalSource]:
        made.connects += 1
        source, end = local_ends()

        async def agent() -> None:
            await run_agent(end, made.base, fake.command)

        failed: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent)
            try:
                yield source
            except BaseException as error:
                failed = error
            await source.aclose()
        if failed is not None:
            raise failed

    resolution.connect = connect  # type: ignore[assignment]
    return made


async def test_nothing_was_held_yet(torn: Torn) -> None:
    """It died in the pre-copy: the process runs on here, and what was received is removed."""
    torn.here(S.RUNNING, tree=False)
    left_behind(torn.base, D.RECEIVING, images=False)
    found = await torn.resolution.settle()
    assert (found.verdict, found.source.tree, found.copy) == (Verdict.HERE, Tree.WHOLE, Copy.BEGUN)
    assert (torn.record.state, torn.record.settled) == (S.BACK, True)
    assert torn.there() == []
    assert running(torn.root.pid)


@pytest.mark.parametrize("state", [S.LOCKED, S.DECIDED, S.BACK])
async def test_the_whole_tree_is_here(torn: Torn, state: SourceState) -> None:
    torn.here(state)
    left_behind(torn.base, D.READY)
    looked = await torn.resolution.look()
    assert (looked.verdict, looked.copy) == (Verdict.HERE, Copy.IMAGES)
    assert torn.record.state is state
    assert torn.there() != []
    for _ in range(2):
        assert (await torn.resolution.settle()).verdict is Verdict.HERE
        assert (torn.record.state, torn.record.settled) == (S.BACK, True)
        assert torn.there() == []
    assert running(torn.root.pid)
    assert torn.restored() == []


@pytest.mark.parametrize("state", [S.DECIDED, S.GONE])
@pytest.mark.parametrize("copy", [D.READY, D.IMAGES])
async def test_the_tree_is_gone(torn: Torn, state: SourceState, copy: DestinationState) -> None:
    torn.here(state)
    torn.gone()
    left_behind(torn.base, copy)
    found = await torn.resolution.settle()
    assert (found.verdict, found.copy) == (Verdict.THERE, Copy.IMAGES)
    assert torn.restored() == [torn.resolution.destination_pid]
    assert (torn.record.state, torn.record.settled) == (S.THERE, True)
    assert torn.there() == []
    assert (await torn.resolution.settle()).verdict is Verdict.THERE
    assert len(torn.restored()) == 1


async def test_the_copy_runs_and_the_source_did_not_hear_it(torn: Torn) -> None:
    torn.here(S.GONE)
    torn.gone()
    left_behind(torn.base, D.RUNNING)
    looked = await torn.resolution.look()  # which makes nobody over there forget it
    assert (looked.verdict, looked.copy) == (Verdict.THERE, Copy.RUNNING)
    assert torn.record.state is S.GONE
    assert (await torn.resolution.settle()).verdict is Verdict.THERE
    assert (torn.record.state, torn.record.settled) == (S.THERE, True)
    assert torn.there() == []


async def test_nothing_is_left_anywhere(torn: Torn) -> None:
    torn.here(S.GONE)
    torn.gone()
    assert (await torn.resolution.settle()).verdict is Verdict.LOST


@pytest.mark.parametrize("state", [S.LOCKED, S.BACK])
async def test_a_copy_that_was_let_go_against_the_rules(torn: Torn, state: SourceState) -> None:
    """What cannot be is not acted upon: the process here is left as it is."""
    torn.here(state)
    left_behind(torn.base, D.RUNNING)
    assert (await torn.resolution.settle()).verdict is Verdict.UNKNOWN
    assert (torn.record.state, torn.record.settled) == (state, False)
    assert torn.there() != []


class Unreachable:
    """An end that cannot be entered."""

    async def __aenter__(self) -> SourceEnd:
        raise ConnectFailed("no way leads to host2")

    async def __aexit__(self, *_error: object) -> None:
        """Nothing was opened."""


@pytest.mark.parametrize("state", [S.LOCKED, S.DECIDED])
async def test_unreached_what_is_here_runs_on(torn: Torn, state: SourceState) -> None:
    torn.here(state)
    connect, torn.resolution.connect = torn.resolution.connect, Unreachable  # type: ignore[assignment]
    found = await torn.resolution.settle()
    assert (found.verdict, found.copy) == (Verdict.HERE, Copy.UNREACHED)
    assert "no way" in str(found.unreached)
    # There may be a copy still, so it is not settled; later it is.
    assert (torn.record.state, torn.record.settled) == (S.BACK, False)
    left_behind(torn.base, D.READY)
    torn.resolution.connect = connect
    assert (await torn.resolution.settle()).verdict is Verdict.HERE
    assert torn.there() == []
    assert torn.record.settled


async def test_unreached_what_is_gone_stays_unknown(torn: Torn) -> None:
    torn.here(S.DECIDED)
    torn.gone()
    torn.resolution.connect = Unreachable  # type: ignore[assignment]
    assert (await torn.resolution.settle()).verdict is Verdict.UNKNOWN
    assert (torn.record.state, torn.record.settled) == (S.DECIDED, False)


async def test_an_other_side_that_cannot_say_what_it_has(torn: Torn) -> None:
    """Its CRIU is broken: that keeps the process here from nothing."""
    torn.here(S.LOCKED)
    torn.fake.play(check=Fault(kind="fail", message="the kernel is odd"))
    found = await torn.resolution.settle()
    assert (found.verdict, found.copy) == (Verdict.HERE, Copy.UNREACHED)
    assert "the kernel is odd" in str(found.unreached)
    assert (torn.record.state, torn.record.settled) == (S.BACK, False)


def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that was restored again, and whose connection is lost, is not held for long."""
    monkeypatch.setattr("phaul.destination.settling.find.__defaults__", (0.2,))


def breaking(
    monkeypatch: pytest.MonkeyPatch, kind: type[m.Request], *, answered: bool
) -> Callable[[], None]:
    """Lose the link at the next request of that kind: before it arrives, or with its answer."""
    call = Caller.call

    async def broken(self: Caller, request: m.Request, timeout: float) -> m.Answer:
        if isinstance(request, kind):
            if answered:
                await call(self, request, timeout)
            raise ConnectionLost("the link is lost")
        return await call(self, request, timeout)

    monkeypatch.setattr(Caller, "call", broken)
    return lambda: monkeypatch.setattr(Caller, "call", call)


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("kind", [m.Recover, m.Commit, m.Ask, m.Bye], ids=lambda k: k.__name__)
async def test_broken_off_at_each_step_and_begun_again(
    torn: Torn, monkeypatch: pytest.MonkeyPatch, kind: type[m.Request], answered: bool
) -> None:
    short_lease(monkeypatch)
    torn.here(S.DECIDED)
    torn.gone()
    left_behind(torn.base, D.READY)
    mend = breaking(monkeypatch, kind, answered=answered)
    found = await torn.resolution.settle()
    if kind is not m.Bye:
        assert found.verdict is Verdict.UNKNOWN
        assert not torn.record.settled
    mend()
    assert (await torn.resolution.settle()).verdict is Verdict.THERE
    assert (torn.record.state, torn.record.settled) == (S.THERE, True)
    assert len(torn.restored()) == 1


async def test_a_damaged_journal_settles_nothing(torn: Torn) -> None:
    torn.journal.path.write_text("{")
    with pytest.raises(PhaulError, match="damaged"):
        await torn.resolution.settle()
    assert torn.connects == 0


async def test_without_a_journal_nobody_is_asked(torn: Torn) -> None:
    found = await torn.resolution.settle()
    assert (found.verdict, torn.connects) == (Verdict.HERE, 0)
    assert running(torn.root.pid)


async def test_nothing_is_released_while_a_task_is_left_here(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the table were wrong: it is looked at once more before Commit."""
    short_lease(monkeypatch)
    torn.here(S.DECIDED)
    left_behind(torn.base, D.IMAGES)
    looks = iter([Tree.GONE])
    monkeypatch.setattr(
        "phaul.source.resolution.tree_left", lambda tree: next(looks, None) or tree_left(tree)
    )
    with pytest.raises(OutcomeUnknown, match="nothing was released"):
        await torn.resolution.settle()
    assert running(torn.root.pid)
    assert torn.record.state is S.DECIDED
