"""The second lock with the real CRIU: the tree stands still whatever becomes of who held it."""

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from phaul.cgroups import Cgroups, LockedGroup
from phaul.criu.engine import Engine
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.errors import LockUnavailable
from phaul.subjects.lock import TreeLock, second_lock
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from tests.engine.conftest import SLOW, StartVictim, counts_on
from tests.engine.groups import Group, groups_left, seen_counter, stands_still, tracer
from tests.victims.harness import Report, Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


class Tree:
    """A victim of several processes with threads, in two cgroups."""

    def __init__(self, victim: Victim, lock: TreeLock) -> None:
        self.victim = victim
        self.lock = lock
        self.before = victim.check(60 * SLOW)
        assert self.before.ok, self.before.problems
        self.pids = tree_pids(victim.pid, Proc())
        self.homes = {pid: lock.cgroups.group_of(pid) for pid in self.pids}

    def plan(self) -> tuple[LockedGroup, ...]:
        groups = self.lock.plan("t3st", self.pids)
        assert len(groups) == 2
        assert len(self.lock.left(groups)) == 0
        return groups

    def counter(self) -> int:
        return seen_counter(self.victim.pid, self.before)

    def goes_on_at_home(self) -> Report:
        assert {pid: self.lock.cgroups.group_of(pid) for pid in self.pids} == self.homes
        return counts_on(self.victim, self.counter())

    def is_gone(self) -> bool:
        until = time.monotonic() + 20 * SLOW
        while any(tracer(pid) is not None for pid in self.pids) and time.monotonic() < until:
            time.sleep(0.01)
        return all(tracer(pid) is None for pid in self.pids)


@pytest.fixture
def tree(victim: StartVictim, tmp_path: Path, group: Group) -> Iterator[Tree]:
    found = victim("tree", "--dir", tmp_path)
    pids = tree_pids(found.pid, Proc())
    assert len(pids) >= 4
    group("one", pids[:2])
    group("two", pids[2:])
    yield Tree(found, TreeLock())
    assert groups_left() == []


@asynccontextmanager
async def held(pid: int, images: Path) -> AsyncIterator[Operation]:
    """A dump that is complete, and held in `post-dump`."""
    images.mkdir()
    async with Engine().worker() as worker:
        with directory_fd(images) as descriptor:
            request = Request(
                RequestType.DUMP,
                images_dir_fd=descriptor,
                pid=pid,
                notify=True,
                leave_running=False,
                log_file="dump.log",
            )
            operation = Operation(worker, request, images / "dump.log", 60 * SLOW)
            await operation.begin()
            await operation.until(Stage.POST_DUMP)
            yield operation


async def close_the_socket(operation: Operation) -> None:
    """What a phaul that dies does to CRIU."""
    await operation.worker.close()


async def kill_criu(operation: Operation) -> None:
    os.kill(operation.worker.process.pid, signal.SIGKILL)
    await operation.worker.close()


@pytest.mark.parametrize("end", [close_the_socket, kill_criu])
def test_the_tree_stands_still_when_criu_goes_away(end: object, tree: Tree, tmp_path: Path) -> None:
    groups = tree.plan()

    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            tree.lock.take(groups)
            assert callable(end)
            await end(operation)

    anyio.run(main)
    assert stands_still(tree.counter)
    assert {tracer(pid) for pid in tree.pids} - {None} == {0}, "one of them is a zombie"
    assert sorted(tree.lock.left(groups)) == sorted(p for each in groups for p in each.pids)

    tree.lock.give_back(groups)
    tree.goes_on_at_home()
    tree.lock.give_back(groups)  # nothing is left to be done


@pytest.mark.parametrize("end", [close_the_socket, kill_criu])
def test_without_the_lock_it_runs_on_by_itself(end: object, tree: Tree, tmp_path: Path) -> None:
    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            assert stands_still(tree.counter)
            assert callable(end)
            await end(operation)

    anyio.run(main)
    assert not stands_still(tree.counter)


def test_criu_kills_the_tree_although_it_is_frozen(tree: Tree, tmp_path: Path) -> None:
    groups = tree.plan()

    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            tree.lock.take(groups)
            await operation.release()
            await operation.finish()

    anyio.run(main)
    assert tree.is_gone()
    assert tree.lock.left(groups) == ()
    tree.lock.give_back(groups)


@pytest.mark.parametrize("by_signals", [False, True])
def test_what_is_left_can_be_killed(tree: Tree, tmp_path: Path, by_signals: bool) -> None:
    groups = tree.plan()

    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            tree.lock.take(groups)
            await kill_criu(operation)

    anyio.run(main)
    os.kill(groups[1].pids[0], signal.SIGKILL)  # a part of it is gone already
    found = Cgroups.find()
    assert found is not None
    kernel = WithoutKill(found.point, found.root) if by_signals else found
    TreeLock(kernel).kill(groups)
    assert tree.is_gone()
    tree.lock.kill(groups)  # nothing is left to be done


class WithoutKill(Cgroups):
    """A kernel before 5.14."""

    def _write(self, group: str, name: str, value: str) -> None:
        if name == "cgroup.kill":
            raise FileNotFoundError(2, "No such file or directory")
        super()._write(group, name, value)


def test_a_rollback_gives_the_lock_back_first(tree: Tree, tmp_path: Path) -> None:
    groups = tree.plan()

    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            tree.lock.take(groups)
            tree.lock.give_back(groups)
            assert stands_still(tree.counter), "CRIU holds it still"
            await operation.refuse()

    anyio.run(main)
    tree.goes_on_at_home()


def test_a_rollback_may_give_it_back_afterwards_too(tree: Tree, tmp_path: Path) -> None:
    groups = tree.plan()

    async def main() -> None:
        async with held(tree.victim.pid, tmp_path / "images") as operation:
            tree.lock.take(groups)
            await operation.refuse()

    anyio.run(main)
    assert stands_still(tree.counter)
    tree.lock.give_back(groups)
    tree.goes_on_at_home()


def test_a_home_that_is_frozen_stays_so(tree: Tree) -> None:
    cgroups, groups = tree.lock.cgroups, tree.plan()
    home = groups[0].home
    cgroups.freeze(home)
    cgroups.wait_frozen(home, 20 * SLOW)
    tree.lock.available(tree.pids)
    tree.lock.take(groups)
    tree.lock.give_back(groups)
    assert cgroups.frozen(home)
    cgroups.thaw(home)
    tree.goes_on_at_home()


def test_preflight_says_what_it_finds_and_changes_nothing(tree: Tree, group: Group) -> None:
    assert second_lock(tree.pids).level.value == "ok"
    assert groups_left() == []
    home = tree.homes[tree.pids[0]]
    assert home is not None
    point = tree.lock.cgroups.point
    (point / home.lstrip("/") / "cgroup.max.descendants").write_text("0")
    with pytest.raises(LockUnavailable, match=r"cgroup\.max\.descendants"):
        tree.lock.available(tree.pids)
    (point / home.lstrip("/") / "cgroup.max.descendants").write_text("max")
    # A threaded group below it makes it the root of a threaded subtree.
    threaded = point / home.lstrip("/") / "threads"
    threaded.mkdir()
    (threaded / "cgroup.type").write_text("threaded")
    found = second_lock(tree.pids)
    threaded.rmdir()
    assert found.level.value == "warning"
    assert "threaded" in found.what
    assert "phaul resolve" in found.what
    tree.goes_on_at_home()


def test_a_tree_in_the_root_of_the_hierarchy(victim: StartVictim) -> None:
    forker = victim("forker")
    before = forker.check(60 * SLOW)
    lock = TreeLock()
    assert lock.cgroups.group_of(forker.pid) == "/"
    groups = lock.plan("t3st", [forker.pid])
    lock.take(groups)
    assert stands_still(lambda: seen_counter(forker.pid, before))
    # Its children forked on meanwhile in the root; those that it forks in the lock come home too.
    lock.cgroups.thaw(groups[0].group)
    until = time.monotonic() + 20 * SLOW
    while len(lock.left(groups)) < 2 and time.monotonic() < until:
        time.sleep(0.001)
    lock.give_back(groups)
    assert groups_left() == []
    counts_on(forker, before.counter)
