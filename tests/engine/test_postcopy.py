"""Post-copy: the source's tree is killed before the copy runs, and the memory follows it."""

import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from phaul.errors import PageStoreError
from phaul.pages.remote import CriuPages
from phaul.pages.remote.link import Message
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.engine.far_side import FarSide, far_side
from tests.engine.groups import groups_left, seen_counter, stands_still
from tests.engine.lazy_restore import make_hybrid
from tests.engine.near_side import NearSide, left, move
from tests.engine.test_page_store import moved, victims
from tests.pipes import large_pipes
from tests.victims.harness import Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


@pytest.fixture(autouse=True)
def _pipes() -> Iterator[None]:
    """CRIU gets its pipes, also without CAP_SYS_RESOURCE."""
    with large_pipes():
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    assert groups_left() == []
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece that the source gives takes 2 ms longer."""
    give = CriuPages.give

    def slowly(self: CriuPages, asked: Message, link: socket.socket) -> int:
        time.sleep(0.002)
        return give(self, asked, link)

    monkeypatch.setattr(CriuPages, "give", slowly)


Step = Callable[[NearSide, FarSide, Victim], Awaitable[None]]


def play(before: Victim, folder: Path, step: Step) -> None:
    """A tree is dumped and held; what then happens is `step`'s."""

    async def main() -> None:
        with far_side() as far:
            async with left(before.pid, folder / "images") as near:
                await step(near, far, before)

    anyio.run(main)


@pytest.mark.parametrize("hybrid", [False, True], ids=["post-copy", "hybrid"])
@pytest.mark.parametrize("name", ["dirtier", "tree", "pyheap.py", "forker", "mapper"])
def test_victim_is_whole(name: str, hybrid: bool, victim: StartVictim, tmp_path: Path) -> None:
    before = victim(name, *victims(tmp_path)[name])
    first = before.check(60 * SLOW)
    assert first.ok, first.problems

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        rounds = make_hybrid(tmp_path, near.images) if hybrid else []
        said = await move(near, far, rounds)
        assert near.post.supply.given >= said["received"] > 0
        if hybrid:
            assert said["received"] < said["pages"]
        if name not in ("forker", "mapper"):
            assert (said["given"], said["never"]) == (said["pages"], 0)
        moved(before, first)

    play(before, tmp_path, step)


async def begin(near: NearSide, far: FarSide, *, sweep: bool) -> socket.socket:
    """Up to where it runs there; a copy of the near end of the link."""
    link = near.link(far)
    far.tell("restore", images=str(near.images), rounds=[], sweep=sweep)
    await far.hear("ready")
    await near.hand_over()
    far.tell("release")
    await far.hear("running")
    return link


def listens(pid: int) -> bool:
    """Whether one of a process's sockets takes connections from the network."""
    own = {str(found.readlink()) for found in Path(f"/proc/{pid}/fd").iterdir()}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                return True
    return False


def test_nothing_listens_and_the_dead_tree_stays_dead(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("tree", "--dir", tmp_path)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        pids = tree_pids(before.pid, Proc())
        with await begin(near, far, sweep=False):
            assert not listens(near.post.held.worker.process.pid)
            far.tell("sweep")
            await near.drained()
            await far.hear("drained")
        states = [found.state for pid in pids if (found := Proc().process(pid))]
        assert set(states) <= {"Z"}

    play(before, tmp_path, step)


async def state(far: FarSide, upto: int) -> int:
    """How many pages the far side lacks, once it is fewer than `upto`."""
    with anyio.fail_after(20 * SLOW):
        while True:
            far.tell("state")
            lacks = int((await far.hear("state"))["lacking"])
            if lacks < upto:
                return lacks
            await anyio.sleep(0.002)


async def unlinked(far: FarSide) -> int:
    """How many pages the far side lacks, once it has no link."""
    with anyio.fail_after(20 * SLOW):
        while True:
            far.tell("state")
            said = await far.hear("state")
            if not said["linked"]:
                return int(said["lacking"])
            await anyio.sleep(0.002)


def cut(link: socket.socket) -> None:
    with link:
        link.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("slow")
def test_a_link_that_is_lost_and_comes_back(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 32)
    first = before.check(60 * SLOW)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        link = await begin(near, far, sweep=True)
        async with anyio.create_task_group() as group:
            group.start_soon(near.drained)
            lacks = 1 << 20
            for _ in range(4):
                assert await state(far, lacks) > 0, "it was not cut in the middle"
                cut(link)
                lacks = await unlinked(far)
                link = near.link(far)
            said = await far.hear("drained")
            link.close()
        assert (said["given"], said["lacking"]) == (said["pages"], 0)
        moved(before, first)

    play(before, tmp_path, step)


def waits_for_memory(pid: int) -> bool:
    return Path(f"/proc/{pid}/wchan").read_text() == "handle_userfault"


def test_a_process_waits_while_there_is_no_link(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 8)
    first = before.check(60 * SLOW)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        with near.link(far) as link:
            far.tell("restore", images=str(near.images), rounds=[], sweep=True)
            await far.hear("ready")
            link.shutdown(socket.SHUT_RDWR)
        await near.hand_over()
        far.tell("release")
        await far.hear("running")
        with anyio.fail_after(20 * SLOW):
            while len(found := copies_of(before.pid)) > 1:
                await anyio.sleep(0.01)
            (pid,) = found
            while not waits_for_memory(pid):
                await anyio.sleep(0.01)
        await anyio.sleep(0.2)
        assert waits_for_memory(pid)
        near.link(far).close()
        async with anyio.create_task_group() as group:
            group.start_soon(near.drained)
            await far.hear("drained")
        moved(before, first)

    play(before, tmp_path, step)


@pytest.mark.usefixtures("slow")
def test_a_criu_that_dies_is_told_and_ends_the_copy(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 32)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        with await begin(near, far, sweep=True):
            await state(far, 6000)
            os.kill(near.post.held.worker.process.pid, signal.SIGKILL)
            with pytest.raises(PageStoreError, match="criu"):
                await near.drained()
            said = await far.hear("failed")
        assert f"{said['lacking']} pages" in said["error"]
        assert "are lost: the source has it no more" in said["error"]
        assert said["lacking"] > 0
        assert copies_of(before.pid) == []

    play(before, tmp_path, step)


def test_a_source_that_does_not_come_back_ends_the_copy(
    victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 8)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        cut(await begin(near, far, sweep=False))
        far.tell("give up")
        said = await far.hear("failed")
        assert "are lost: the test says so" in said["error"]
        assert copies_of(before.pid) == []
        with pytest.raises(PageStoreError, match="the destination was not there"):
            await near.post.drained(0.1)

    play(before, tmp_path, step)


def test_it_can_be_taken_back_until_the_commit(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 8)
    first = before.check(60 * SLOW)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        with near.link(far):
            far.tell("restore", images=str(near.images), rounds=[], sweep=False)
            await far.hear("ready")
            far.tell("discard")
            await far.hear("discarded")
            assert await near.owner.back() == ()
            await near.post.refuse()
        assert copies_of(before.pid) == [before.pid]
        counts_on(before, first.counter)

    play(before, tmp_path, step)


async def nothing(near: NearSide) -> None:
    """It is still held in `post-dump`."""


async def pass_on(near: NearSide) -> None:
    """It is about to serve."""
    await near.post.held.pass_on()


@pytest.mark.parametrize("get_there", [nothing, pass_on])
def test_a_phaul_that_dies_before_it_serves_leaves_the_tree_still(
    get_there: Callable[[NearSide], Awaitable[None]], victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 8)
    first = before.check(60 * SLOW)

    async def step(near: NearSide, far: FarSide, before: Victim) -> None:
        await get_there(near)
        await near.post.close()  # CRIU sees what it would see then
        assert stands_still(lambda: seen_counter(before.pid, first))
        assert await near.owner.back() == ()
        counts_on(before, first.counter)

    play(before, tmp_path, step)
