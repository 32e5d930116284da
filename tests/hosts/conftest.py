"""Fixtures: two hosts for all the tests here, victims on the first, and the command."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.machine import SHARED, Host, Hosts, two_hosts
from tests.victims.harness import Report, Victim, start

VICTIMS = Path(os.environ["PHAUL_VICTIMS"])
HOLDER = Path(__file__).with_name("holder.py")
FIRST_PID = 20_000
"""Victims' PIDs: far from what host2 starts by itself, so that they are free there."""
LIMIT = 60.0


@pytest.fixture(scope="session")
def machine() -> Iterator[Hosts]:
    """The two hosts."""
    with two_hosts("/phaul/src:/site", os.environ["PYTHONPYCACHEPREFIX"]) as two:
        yield two


@pytest.fixture
def hosts(machine: Hosts) -> Iterator[Hosts]:
    """The two hosts, without anything of a former test."""
    before = {host.name: host.state() for host in machine.both}
    yield machine
    for host in reversed(machine.both):
        host.clean(before[host.name])


@dataclass(frozen=True)
class Subject:
    """A victim: where it writes its report, and its PID, which it keeps when it is moved."""

    name: str
    pid: int
    report: Path

    def on(self, host: Host) -> Victim:
        """The victim as a process of that host; AssertionError if it is not there."""
        outer = host.outer_pid(self.pid)
        assert outer is not None, f"{self.name}, PID {self.pid}, is not on {host.name}"
        return Victim(outer, self.report)

    def whole(self, host: Host) -> Report:
        """Its report, from that host: it must be right, and it must count on."""
        victim = self.on(host)
        before = victim.check()
        assert before.ok, before.problems
        until = time.monotonic() + LIMIT
        while (report := victim.check()).counter <= before.counter:
            assert time.monotonic() < until, "it stands still"
            time.sleep(0.01)
        assert report.ok, report.problems
        return report

    def only_on(self, there: Host, other: Host) -> Report:
        """Its report, from the one host; on the other there must be none."""
        assert other.outer_pid(self.pid) is None, f"{self.name} is still on {other.name}"
        return self.whole(there)


StartSubject = Callable[..., Subject]


@pytest.fixture
def shared(hosts: Hosts) -> Path:
    """A directory that both hosts see, as on network storage."""
    folder = SHARED / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def victim(hosts: Hosts, shared: Path) -> StartSubject:
    """Starts victims on host1: a program of tests/victims, or `holder` with its things."""
    count = iter(range(100))

    def run(name: str, *options: object, program: Path | None = None, report: str = "") -> Subject:
        number = next(count)
        words = [program] if program else [VICTIMS / name]
        if name == "holder":
            words = ["python3", "-S", HOLDER]
        path = Path(report) if report else shared / f"{name}-{number}.json"
        path.unlink(missing_ok=True)
        hosts.source.next_pid(FIRST_PID + 100 * number)
        pid = start([*(str(word) for word in (*words, *options)), "--report", str(path)])
        return Subject(name, pid, path)

    return run


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    status: int
    stdout: str
    stderr: str
    events: list[dict[str, Any]]

    @property
    def json(self) -> dict[str, Any]:
        """The one object of `--json`."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def event(self, name: str) -> dict[str, Any]:
        """The first event of that name."""
        found = [event for event in self.events if event["event"] == name]
        assert found, f"no event {name} in {[event['event'] for event in self.events]}: {self}"
        return found[0]

    def says(self, *texts: str) -> None:
        """Each of the texts must stand on standard error, however its lines are broken."""
        said = "".join(self.stderr.split())
        for text in texts:
            assert "".join(text.split()) in said, f"{text!r} is not said: {self}"


class Running:
    """A `phaul` on host1 that is followed by its events."""

    def __init__(self, host: Host, words: tuple[object, ...]) -> None:
        self._events, theirs = os.pipe()
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        self.process = host.popen(
            ["phaul", *words, "--events", f"jsonl:{theirs}"],
            pass_fds=(theirs,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(theirs)

    def next_event(self, timeout: float = LIMIT) -> dict[str, Any] | None:
        """The next event; None at the end."""
        until = time.monotonic() + timeout
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._events], [], [], max(0, until - time.monotonic()))
            assert ready, f"no event for {timeout} s after {self.events[-1:]}"
            data = os.read(self._events, 65536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        self.events.append(event)
        return event

    def until(self, name: str) -> dict[str, Any] | None:
        """Wait for an event of that name; None if there is none."""
        while event := self.next_event():
            if event["event"] == name:
                return event
        return None

    def signal(self, number: signal.Signals) -> None:
        """Signal the command, as a terminal or a service manager would."""
        self.process.send_signal(number)

    def end(self, timeout: float = LIMIT) -> Outcome:
        """Wait for the end."""
        while self.next_event(timeout):
            pass
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise AssertionError(f"phaul did not end: {stdout}{stderr}") from None
        return Outcome(self.process.returncode, stdout, stderr, self.events)

    def close(self) -> None:
        """End what still runs."""
        os.close(self._events)
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


class Command:
    """`phaul` on host1."""

    def __init__(self, host: Host, stack: ExitStack) -> None:
        self._host = host
        self._stack = stack

    def __call__(self, *words: object, timeout: float = LIMIT, prefix: tuple[str, ...] = ()) -> Outcome:
        """Run it to its end, without events."""
        done = self._host.run([*prefix, "phaul", *words], timeout=timeout)
        return Outcome(done.returncode, done.stdout, done.stderr, [])

    def follow(self, *words: object) -> Running:
        """Start it, and follow its events."""
        running = Running(self._host, words)
        self._stack.callback(running.close)
        return running

    def migrate(self, subject: Subject, *options: object, target: str = "root@host2") -> Outcome:
        """`phaul migrate` to its end, with its events."""
        return self.follow("migrate", subject.pid, target, *options).end()


@pytest.fixture
def phaul(hosts: Hosts) -> Iterator[Command]:
    """The command on host1."""
    with ExitStack() as stack:
        yield Command(hosts.source, stack)
