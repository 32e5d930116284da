"""The cage with the real CRIU: what a CRIU that died has left is found, and ended."""

import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from phaul.cgroups import Cgroups
from phaul.config import Config
from phaul.criu.engine import Engine
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.destination.cage import Cage, kill_caged
from phaul.destination.session import DestinationSession
from phaul.errors import CriuDied
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from tests.engine.conftest import SLOW, StartVictim, counts_on
from tests.engine.groups import Group, groups_left, tracer
from tests.victims.harness import Report, Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


@dataclass
class Dumped:
    """A tree that was dumped and killed, and was in `home`."""

    victim: Victim
    report: Report
    images: Path
    home: str
    pids: list[int]

    def is_gone(self) -> bool:
        until = time.monotonic() + 20 * SLOW
        while any(map(exists, self.pids)) and time.monotonic() < until:
            time.sleep(0.01)
        return not any(map(exists, self.pids))

    def moved(self) -> Victim:
        """What was restored, once it runs whole, where it was."""
        victim = Victim(self.victim.pid, self.victim.report_path)
        counts_on(victim, self.report.counter)
        cgroups = Cgroups.find()
        assert cgroups is not None
        assert cgroups.group_of(victim.pid) == self.home
        return victim


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(params=["/", "/app"], ids=["as CRIU's", "its own"])
def dumped(
    request: pytest.FixtureRequest, victim: StartVictim, tmp_path: Path, group: Group
) -> Dumped:
    """Its group is CRIU's own, in which CRIU restores it; or another, where CRIU moves it to."""
    home = str(request.param)
    found = victim("tree", "--dir", tmp_path)
    pids = tree_pids(found.pid, Proc())
    if home != "/":
        group(home[1:], pids)
    images = tmp_path / "images"
    images.mkdir()
    dump = Dumped(found, found.check(60 * SLOW), images, home, pids)

    async def main() -> None:
        await dump_and_kill(found.pid, images, None)

    anyio.run(main)
    assert dump.is_gone()
    return dump


async def dump_and_kill(pid: int, images: Path, memory_fd: int | None) -> None:
    async with Engine().worker(() if memory_fd is None else (memory_fd,)) as worker:
        with directory_fd(images) as descriptor:
            request = Request(
                RequestType.DUMP,
                images_dir_fd=descriptor,
                pid=pid,
                memory_fd=memory_fd,
                leave_running=False,
                log_file="dump.log",
            )
            operation = Operation(worker, request, images / "dump.log", 60 * SLOW)
            await operation.begin()
            await operation.finish()


@asynccontextmanager
async def restored(dumped: Dumped, cage: Cage | None) -> AsyncIterator[Operation]:
    """A tree restored and held in `post-restore`, in the cage."""
    async with Engine().worker() as worker:
        if cage:
            cage.hold(worker.process.pid)
        with directory_fd(dumped.images) as descriptor:
            request = Request(
                RequestType.RESTORE, images_dir_fd=descriptor, notify=True, log_file="restore.log"
            )
            log = dumped.images / "restore.log"
            operation = Operation(worker, request, log, 60 * SLOW)
            await operation.begin()
            held = await operation.until(Stage.POST_RESTORE)
        assert held.pid is not None
        if cage:
            cage.gather(held.pid)
        yield operation


async def kill_criu(operation: Operation) -> None:
    os.kill(operation.worker.process.pid, signal.SIGKILL)
    await operation.worker.close()


def test_a_criu_that_is_killed_leaves_the_tree_and_the_cage_ends_it(dumped: Dumped) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with restored(dumped, cage) as operation:
            await kill_criu(operation)

    anyio.run(main)
    assert {tracer(pid) for pid in dumped.pids} - {None} == {0}, "it is left, and nobody has it"
    cage.kill()
    assert dumped.is_gone()
    assert groups_left() == []
    cage.kill()  # nothing is left to be done


def test_another_process_can_end_it_by_the_journal(dumped: Dumped) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with restored(dumped, cage) as operation:
            await kill_criu(operation)

    anyio.run(main)
    kill_caged(cage.groups)
    assert dumped.is_gone()
    assert groups_left() == []


def test_a_criu_whose_socket_is_closed_ends_the_tree_itself(dumped: Dumped) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with restored(dumped, cage):
            pass

    anyio.run(main)
    assert dumped.is_gone()
    cage.kill()
    assert groups_left() == []


@pytest.mark.parametrize("stage", [Stage.PRE_RESTORE, Stage.POST_RESTORE])
def test_a_tree_that_was_not_gathered_yet_is_found(dumped: Dumped, stage: Stage) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with Engine().worker() as worker:
            cage.hold(worker.process.pid)
            with directory_fd(dumped.images) as descriptor:
                request = Request(
                    RequestType.RESTORE,
                    images_dir_fd=descriptor,
                    notify=True,
                    log_file="restore.log",
                )
                log = dumped.images / "restore.log"
                operation = Operation(worker, request, log, 60 * SLOW)
                await operation.begin()
                await operation.until(stage)
            os.kill(worker.process.pid, signal.SIGKILL)
            cage.kill()

    anyio.run(main)
    assert dumped.is_gone()
    assert groups_left() == []


def test_nothing_is_left_of_the_cage_when_the_tree_runs(dumped: Dumped) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with restored(dumped, cage) as operation:
            await operation.release()
            await operation.finish()
        cage.leave()

    anyio.run(main)
    victim = dumped.moved()
    assert groups_left() == []
    cage.kill()  # too late, and so without effect
    counts_on(victim, victim.check(60 * SLOW).counter)
    victim.terminate(30 * SLOW)


@pytest.mark.parametrize("stage", [Stage.PRE_RESUME, Stage.POST_RESUME])
def test_a_criu_that_is_killed_once_it_resumes_leaves_the_tree_running(
    dumped: Dumped, stage: Stage
) -> None:
    cage = Cage("t3st")

    async def main() -> None:
        async with restored(dumped, cage) as operation:
            await operation.release()
            await operation.until(stage)
            await kill_criu(operation)

    anyio.run(main)
    cage.leave()
    dumped.moved().terminate(30 * SLOW)
    assert groups_left() == []


@pytest.mark.parametrize("home", ["/", "/app"])
@pytest.mark.parametrize("how", ["released", "discarded", "closed", "killed"])
def test_a_session_with_a_cage(
    how: str, home: str, victim: StartVictim, tmp_path: Path, group: Group
) -> None:
    found = victim("tree", "--dir", tmp_path)
    pids = tree_pids(found.pid, Proc())
    if home != "/":
        group(home[1:], pids)
    here = tmp_path / "images"
    here.mkdir()
    dump = Dumped(found, found.check(60 * SLOW), here, home, pids)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            config = Config(memory_fd=theirs.fileno(), work_dir=tmp_path / "there")
            async with DestinationSession(config, cage=Cage("t3st")) as session:
                await session.start_iteration()
                await dump_and_kill(found.pid, here, ours.fileno())
                await session.stop_iteration()
                session.add_images(here.glob("*.img"))
                assert dump.is_gone()
                assert await session.restore() == found.pid
                await session.gather()
                assert len(groups_left()) == (1 if home == "/" else 2)
                if how == "released":
                    await session.release()
                elif how == "discarded":
                    await session.discard()
                elif how == "killed":
                    for pid in caged_workers():
                        os.kill(pid, signal.SIGKILL)

    died = pytest.raises(CriuDied) if how == "killed" else nullcontext()
    with died:
        anyio.run(main)
    assert groups_left() == []
    if how == "released":
        dump.moved().terminate(30 * SLOW)
    else:
        assert dump.is_gone()


def caged_workers() -> list[int]:
    cgroups = Cgroups.find()
    assert cgroups is not None
    return [
        pid
        for pid in cgroups.members("/phaul-t3st.cage")
        if Path(f"/proc/{pid}/comm").read_text() == "criu\n"
    ]
