"""A victim of these tests: which of the two hosts it is on, and whether it is whole."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.hosts.machine import Host
from tests.victims.harness import Report, Victim

VICTIMS = Path(os.environ.get("PHAUL_VICTIMS", "build/victims"))
HOLDER = Path(__file__).with_name("holder.py")
FIRST_PID = 20_000
"""Victims' PIDs: far from what host2 starts by itself, so that they are free there."""
LIMIT = 60.0


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

    def pids(self) -> set[int]:
        """The PIDs of its tree on host1, zombies among them; its threads are no processes."""
        found, todo = set(), [self.pid]
        while todo:
            found.add(pid := todo.pop())
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        return found

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
