"""Fixtures of the engine tests.  They run where a real CRIU works: the sandbox, or a guest."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import phaul
from examples.local_migration import MoveToNamespace, destination
from examples.rpc import RemoteServer
from tests.engine.groups import Group, make_groups
from tests.victims.harness import Report, Victim, start

VICTIMS = Path(os.environ.get("PHAUL_VICTIMS", "build/victims"))
SLOW = float(os.environ.get("PHAUL_SLOW", "1"))
"""How many times slower than native this machine is, for the time limits."""

StartVictim = Callable[..., Victim]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[StartVictim]:
    """Starts victims, and ends what is left of them."""
    started: list[Victim] = []

    def run(name: str, *options: object) -> Victim:
        # Above what a fresh PID namespace gives its own processes.
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(2000 + 100 * len(started)))
        report = tmp_path / f"{name}-{len(started)}.json"
        words = [VICTIMS / name, *options, "--report", report]
        found = Victim(start([str(w) for w in words], 60 * SLOW), report)
        started.append(found)
        return found

    yield run
    for found in started:
        if found.alive():
            found.terminate(30 * SLOW)


@pytest.fixture
def group() -> Iterator[Group]:
    """Makes cgroups, and removes them with all that is in them."""
    yield from make_groups()


class Place:
    """The other PID namespace: its Server, and what the source needs to move something there."""

    def __init__(self, server: RemoteServer, memory_fd: int, work: Path) -> None:
        self.server = server
        self.memory_fd = memory_fd
        self.work = work
        self.there = work / "there"
        self.here = work / "here"
        self.events: list[phaul.Event] = []

    def config(self, pid: int, options: phaul.CriuOptions | None = None) -> phaul.Config:
        return phaul.Config(
            pid=pid,
            memory_fd=self.memory_fd,
            work_dir=self.here,
            options=options or phaul.CriuOptions(),
        )

    def client(self, config: phaul.Config, local: phaul.Local | None = None) -> phaul.Client:
        return phaul.Client(
            local or MoveToNamespace(self.server),
            self.server,
            config,
            on_event=self.events.append,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A destination in a PID namespace of its own."""
    with destination(tmp_path / "there") as (server, memory_fd):
        yield Place(server, memory_fd, tmp_path)


@pytest.fixture(autouse=True)
def _no_criu_is_left() -> Iterator[None]:
    """A test that leaves a CRIU behind fails, and does no harm to the next."""
    yield
    left = criu_processes()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def memory() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A memory channel within one process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def counts_on(victim: Victim, counter: int) -> Report:
    """The report of a victim that is whole, once it has counted beyond `counter`."""
    until = time.monotonic() + 20 * SLOW
    while True:
        report = victim.check(60 * SLOW)
        assert report.ok, report.problems
        if report.counter > counter:
            return report
        assert time.monotonic() < until, "it stands still"
        time.sleep(0.05)


def copies_of(pid: int) -> list[int]:
    """The processes, as seen from here, whose innermost PID is `pid`: the copies of one process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            if fields["NSpid"].split()[-1] == str(pid) and "Z" not in fields["State"]:
                found.append(int(entry.name))
    return found


def criu_processes(*, idle: bool = True) -> list[int]:
    """The CRIU processes that run; without `idle`, but for a Server's worker that waits."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "comm").read_text().strip()
                state = (entry / "stat").read_text().rpartition(") ")[2][0]
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            waits = not idle and b"\0swrk\0" in words
            if name == "criu" and state != "Z" and not waits:
                found.append(int(entry.name))
    return found
