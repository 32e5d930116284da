"""The command `phaul` on host1: run to its end, or followed by its events."""

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.hosts.machine import Host
from tests.hosts.subject import Subject

LIMIT = 60.0


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
        envelope = json.loads(line)
        assert envelope["v"] == 1
        event: dict[str, Any] = envelope["event"]
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

    def __call__(
        self, *words: object, timeout: float = LIMIT, prefix: tuple[str, ...] = ()
    ) -> Outcome:
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
