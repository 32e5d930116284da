"""The keeper with the real CRIU: the memory comes, or the process ends, whoever dies."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from phaul.destination.incoming import keeps
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState
from phaul.storage.journal import DestinationRecord, Journal
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on, criu_processes
from tests.engine.lazy_restore import dump
from tests.victims.harness import Report, Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]
LIMIT = 60 * SLOW


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def waits(pid: int) -> bool:
    """Whether a process waits for memory."""
    return Path(f"/proc/{pid}/wchan").read_text() == "handle_userfault"


class Moved:
    """A victim that was dumped and is restored lazily by an agent of its own, and held."""

    def __init__(self, before: Victim, incoming: Path) -> None:
        self.before = before
        self.first = before.check(LIMIT)
        assert self.first.ok, self.first.problems
        self.path = incoming
        self.images = incoming / "images/0"
        anyio.run(dump, before.pid, self.images)
        self.state(DestinationState.READY)
        words = [sys.executable, "-m", "tests.engine.lazy_agent", str(incoming)]
        self.agent = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        kind, pid, keeper = self.hears().split()
        assert kind == "held"
        self.pid = int(pid)
        found = Incarnation.of(int(keeper))
        assert found is not None
        self.keeper = found
        below = set(tree_pids(found.pid, Proc()))
        [self.daemon] = below.intersection(criu_processes())
        [self.warden] = below - {self.daemon, found.pid}

    def state(self, state: DestinationState) -> None:
        """What the journal says."""
        agent = Incarnation.of(os.getpid())
        assert agent is not None
        record = DestinationRecord(
            id="a1", key="0" * 32, state=state, source="there", agent=agent, images="images/0"
        )
        Journal(self.path, DestinationRecord).write(record, sync=False)

    def hears(self) -> str:
        assert self.agent.stdout is not None
        assert select.select([self.agent.stdout], [], [], LIMIT)[0], "the agent says nothing"
        return self.agent.stdout.readline().strip()

    def tell(self, word: str) -> str:
        assert self.agent.stdin is not None
        self.agent.stdin.write(word + "\n")
        self.agent.stdin.flush()
        return self.hears()

    def runs(self, state: DestinationState = DestinationState.RUNNING) -> None:
        """Let it run; no memory comes before the keeper goes on, which is stopped for that."""
        assert self.tell("go") == "runs"
        self.state(state)

    def kill_agent(self) -> None:
        self.agent.kill()
        self.agent.wait()

    def go_on(self) -> None:
        self.keeper.signal(signal.SIGCONT)

    def keeper_ends(self) -> None:
        until(lambda: not self.keeper.alive(), "the keeper does not end")
        assert not keeps(self.path)

    def is_whole(self) -> Report:
        (pid,) = copies_of(self.before.pid)
        return counts_on(Victim(pid, self.before.report_path), self.first.counter)

    def close(self) -> None:
        self.kill_agent()
        for stream in (self.agent.stdin, self.agent.stdout):
            assert stream is not None
            stream.close()
        for pid in copies_of(self.before.pid):
            os.kill(pid, signal.SIGKILL)
        self.keeper.signal(signal.SIGKILL)


@pytest.fixture
def moved(victim: StartVictim, tmp_path: Path) -> Iterator[Moved]:
    found = Moved(victim("dirtier", "--size-mb", 128), tmp_path / "incoming")
    yield found
    found.close()


def test_it_outlives_the_agent(moved: Moved) -> None:
    moved.runs()
    moved.kill_agent()
    assert moved.keeper.alive()
    assert keeps(moved.path)
    moved.go_on()
    moved.is_whole()
    moved.keeper_ends()
    assert {path.suffix for path in moved.path.iterdir()} == {".json"}


def test_it_removes_all_if_the_source_was_told(moved: Moved) -> None:
    moved.runs()
    moved.go_on()
    assert moved.tell("leave") == "left"
    moved.agent.wait(LIMIT)
    moved.is_whole()
    moved.keeper_ends()
    assert not moved.path.exists()


def test_signals_that_ask_to_end_are_not_heard(moved: Moved) -> None:
    moved.runs()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        moved.keeper.signal(number)
        os.kill(moved.daemon, number)
    moved.go_on()
    moved.is_whole()


def test_a_daemon_that_dies_takes_the_process_with_it(moved: Moved) -> None:
    """It waits for memory until it is ended, and never reads zeros."""
    moved.runs()
    moved.kill_agent()
    os.kill(moved.daemon, signal.SIGKILL)
    (pid,) = copies_of(moved.before.pid)
    until(lambda: waits(pid), "it does not wait")
    moved.go_on()
    moved.keeper_ends()
    assert copies_of(moved.before.pid) == []
    assert (moved.images / "pages-1.img").exists()
    assert "its memory did not come" in (moved.path / "KEEP").read_text()


def test_an_agent_that_dies_before_the_release(moved: Moved) -> None:
    """CRIU ends the copy then; its images stay, and the keeper ends."""
    moved.kill_agent()
    moved.keeper_ends()
    until(lambda: copies_of(moved.before.pid) == [], "the copy is still there")
    assert (moved.images / "pages-1.img").exists()


def test_a_keeper_that_dies_before_the_release(moved: Moved) -> None:
    """Then the copy is given up."""
    moved.keeper.signal(signal.SIGKILL)
    assert moved.tell("go") == "failed here: the keeper of the memory has ended"
    assert moved.agent.wait(LIMIT) == 0
    assert copies_of(moved.before.pid) == []


def test_a_daemon_that_dies_before_the_release(moved: Moved) -> None:
    os.kill(moved.daemon, signal.SIGKILL)
    until(lambda: Incarnation.of(moved.daemon) is None, "the daemon goes on")
    assert "lazy-pages daemon was killed by SIGKILL" in moved.tell("go")
    assert moved.agent.wait(LIMIT) == 0
    moved.keeper_ends()
    assert copies_of(moved.before.pid) == []


def test_a_daemon_that_was_stopped_ends(moved: Moved) -> None:
    """CRIU takes the interruption for an error, also where nothing is to be brought yet."""
    os.kill(moved.daemon, signal.SIGSTOP)
    os.kill(moved.daemon, signal.SIGCONT)
    until(lambda: Incarnation.of(moved.daemon) is None, "the daemon goes on")
    assert "lazy-pages daemon ended with status 1" in moved.tell("go")
    assert moved.agent.wait(LIMIT) == 0
    moved.keeper_ends()
    assert copies_of(moved.before.pid) == []


def test_a_keeper_that_dies_takes_the_process_with_it(moved: Moved) -> None:
    """Its warden keeps the process from zeros until that has ended."""
    moved.runs()
    moved.kill_agent()
    os.kill(moved.warden, signal.SIGSTOP)
    moved.keeper.signal(signal.SIGKILL)
    until(lambda: Incarnation.of(moved.daemon) is None, "the daemon goes on")
    (pid,) = copies_of(moved.before.pid)
    until(lambda: waits(pid), "it does not wait")
    os.kill(moved.warden, signal.SIGCONT)
    until(lambda: copies_of(moved.before.pid) == [], "it is still there")
    until(lambda: (moved.path / "KEEP").exists(), "nobody says so")
    assert (moved.images / "pages-1.img").exists()
    until(lambda: not keeps(moved.path), "the warden does not end")
