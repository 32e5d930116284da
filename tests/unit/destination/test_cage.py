"""The cage: what goes in, and that nothing is left of it.  With CRIU: tests/engine/test_cage.py."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phaul.cgroups import Cgroups
from phaul.destination.cage import Cage, kill_caged
from phaul.errors import CgroupError
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from tests.unit.fake_cgroups import FakeCgroups

pytestmark = pytest.mark.usefixtures("no_leaks")
WORKER, ROOT, CHILD, SIBLING = os.getpid(), 2001, 2002, 2003
"""The worker has to be a process that there is."""


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[FakeCgroups]:
    """The agent in /agent; a tree that CRIU has put in two groups, and left in its own."""
    found = FakeCgroups.at(tmp_path)
    (found.proc / "self/cgroup").write_text("0::/agent\n")
    found.process(WORKER, "/agent", parent=1, children=(ROOT,))
    found.process(ROOT, "/app", parent=WORKER, children=(CHILD, SIBLING))
    found.process(CHILD, "/app/part", parent=ROOT)
    found.process(SIBLING, "/agent", parent=ROOT)
    yield found
    assert "phaul" not in str(found.tree()), "nothing of the cage is left"


def place(cgroups: Cgroups) -> list[str | None]:
    return [cgroups.group_of(pid) for pid in (WORKER, ROOT, CHILD, SIBLING)]


def test_all_is_caged_and_comes_back(cgroups: FakeCgroups) -> None:
    before = place(cgroups)
    cage = Cage("ab12", cgroups)
    cage.prepare(WORKER)
    cage.hold(WORKER)
    cgroups.move(SIBLING, "/agent/phaul-ab12.cage")  # as CRIU forks it there
    cage.gather(ROOT)
    caged = ["/agent/phaul-ab12.cage", "/app/phaul-ab12.cage", "/app/part/phaul-ab12.cage"]
    assert place(cgroups) == [*caged, caged[0]]
    assert [each.group for each in cage.groups] == caged
    assert not any(cgroups.is_frozen(group) for group in caged)
    cgroups.process(2010, caged[1], parent=ROOT)  # forked since it runs
    cage.leave()
    assert place(cgroups) == before
    assert cgroups.group_of(2010) == "/app"
    assert cage.groups == ()


def test_it_is_known_before_it_is_made(cgroups: FakeCgroups) -> None:
    cage = Cage("ab12", cgroups)
    foreseen = cage.foreseen()
    kill_caged(foreseen, cgroups)  # there is nothing yet
    cage.prepare(WORKER)
    assert cage.groups == foreseen
    cage.leave()


def test_a_group_that_is_the_agents_own_is_caged_too(cgroups: FakeCgroups) -> None:
    cage = Cage("ab12", cgroups)
    cage.hold(WORKER)
    cage.gather(SIBLING)
    assert cgroups.group_of(SIBLING) == "/agent/phaul-ab12.cage"
    assert len(cage.groups) == 1
    cage.leave()
    assert cgroups.group_of(SIBLING) == "/agent"


def test_all_that_is_caged_is_killed(cgroups: FakeCgroups) -> None:
    cage = Cage("ab12", cgroups)
    cage.hold(WORKER)
    cage.gather(ROOT)
    cage.kill()
    assert place(cgroups) == [None, None, None, None]
    cage.kill()


def test_the_journal_is_enough_to_end_it(cgroups: FakeCgroups) -> None:
    cage = Cage("ab12", cgroups)
    cage.hold(WORKER)
    cage.gather(ROOT)
    kill_caged(cage.groups, cgroups)
    assert place(cgroups) == [None, None, None, None]
    kill_caged(cage.groups, cgroups)
    cage.kill()


def test_what_is_over_takes_nobody_in(cgroups: FakeCgroups) -> None:
    before = place(cgroups)
    cage = Cage("ab12", cgroups)
    cage.leave()
    cage.prepare(WORKER)
    cage.hold(WORKER)
    cage.gather(ROOT)
    cage.kill()
    assert place(cgroups) == before


def test_a_tree_that_cannot_be_caged_is_left_where_it_is(
    cgroups: FakeCgroups, caplog: pytest.LogCaptureFixture
) -> None:
    before = place(cgroups)
    cage = Cage("ab12", cgroups)
    cage.hold(WORKER)
    cgroups.full.add("/app/part")
    cage.gather(ROOT)
    assert "not caged" in caplog.text
    assert place(cgroups)[1:] == before[1:]
    cage.leave()
    assert place(cgroups) == before


def unseen(_self: Cgroups, pid: int | str) -> str | None:
    raise CgroupError(f"process {pid} is in cgroup '/..', which cannot be reached here")


@pytest.fixture(params=["none", "out of sight"])
def uncaged(
    request: pytest.FixtureRequest, cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without cgroup v2, and an agent in a group that is not below what it can see."""
    found = None if request.param == "none" else cgroups
    monkeypatch.setattr(Cgroups, "find", lambda *_: found)
    monkeypatch.setattr(FakeCgroups, "group_of", unseen)


ORPHANS = """
import os, sys, time
sys.stdin.readline()
for _ in range(2):
    if not os.fork():
        os.setsid()
        os.fork()
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(600)
sys.stdin.read()
"""


def orphaned(cage: Cage, disown: Callable[[Cage], None]) -> list[int]:
    """A worker with what it made is held, and dies; what it made, after `disown` and `kill`."""
    worker = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with worker:
        cage.prepare(worker.pid)
        cage.hold(worker.pid)
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(b"go on\n")
        worker.stdin.flush()
        made = [int(worker.stdout.readline()) for _ in range(4)]
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # they are this process's now
        disown(cage)
        cage.kill()
        return made


def left(pids: list[int]) -> list[int]:
    """Those that run, or are this process's to reap."""
    found = [(pid, stat) for pid in pids if (stat := Proc().process(pid)) is not None]
    return [pid for pid, stat in found if stat.state != "Z" or stat.parent == os.getpid()]


def killed(cage: Cage) -> None:
    """All of it is killed, as all that is caged is: a zombie that nobody reaps keeps its PID."""
    cage.disown()
    for pid in tree_pids(os.getpid(), Proc())[1:]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("disown", [lambda _cage: None, Cage.disown, killed])
@pytest.mark.usefixtures("uncaged")
def test_without_a_cage_what_lost_its_criu_is_ended_all_the_same(
    disown: Callable[[Cage], None],
) -> None:
    cage = Cage("ab12")
    assert left(orphaned(cage, disown)) == []
    assert cage.groups == ()


@pytest.mark.parametrize("end", [Cage.kill, Cage.leave])
@pytest.mark.usefixtures("uncaged")
def test_one_that_is_over_ends_nothing_of_the_next_restore(end: Callable[[Cage], None]) -> None:
    cage = Cage("ab12")
    with subprocess.Popen(["true"]) as worker:
        cage.hold(worker.pid)
    end(cage)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        cage.kill()
        assert other.poll() is None


@pytest.mark.usefixtures("uncaged")
def test_without_a_cage_nothing_fails() -> None:
    cage = Cage("ab12")
    cage.prepare(WORKER)
    cage.hold(WORKER)
    cage.gather(ROOT)
    assert cage.groups == ()
    cage.leave()
    cage.kill()
