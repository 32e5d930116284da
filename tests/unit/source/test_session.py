"""The asynchronous session itself, and its canceller."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from phaul.errors import Cancelled, UsageError
from phaul.source import Cutover, Release, SourceSession
from phaul.source.context import Canceller
from tests.unit.conftest import Ends, running
from tests.unit.scenario import Dump, Fault

pytestmark = pytest.mark.anyio


class Local:
    async def dump_copy_restore(self, cutover: Cutover) -> Release | None:
        await cutover.dump()
        return None


class Remote:
    async def start_iteration(self) -> None:
        """Nothing to do: what is sent is not read."""

    stop_iteration = start_iteration


async def test_a_request_in_a_window_ends_it() -> None:
    canceller = Canceller()

    async def work() -> None:
        with canceller.window():
            assert canceller.request() is True
            await anyio.sleep_forever()

    with pytest.raises(Cancelled):
        await work()


async def test_a_request_before_a_window_ends_it_at_its_first_wait() -> None:
    canceller = Canceller()
    canceller.request()
    with pytest.raises(Cancelled), canceller.window():
        await anyio.sleep_forever()


async def test_a_request_in_a_window_that_waits_no_more_counts() -> None:
    canceller = Canceller()
    with pytest.raises(Cancelled), canceller.window():
        assert canceller.request() is True


async def test_an_error_in_a_window_is_told() -> None:
    canceller = Canceller()
    with pytest.raises(ValueError, match="mine"), canceller.window():
        raise ValueError("mine")


async def test_needs_a_pid(ends: Ends) -> None:
    with pytest.raises(UsageError, match="pid"):
        SourceSession(replace(ends.config, pid=None), Local(), Remote())


async def test_a_cancel_from_outside_undoes_all(ends: Ends, tmp_path: Path) -> None:
    ends.source.play(rounds=(Dump(fault=Fault(kind="hang")),))
    session = SourceSession(ends.config, Local(), Remote())
    async with anyio.create_task_group() as group:
        group.start_soon(session.migrate)
        while not ends.source.notes("SINGLE_PRE_DUMP"):
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert running(ends.victim)
    assert not [path for path in (tmp_path / "src").rglob("*") if path.suffix != ".log"][1:]
