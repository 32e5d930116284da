"""The sentries of both guests, and what they say.  Runs on the host."""

import json
import threading
import time
from typing import Any, Final

from lab import Command, Guest, LabError
from tests.vm.faults.scene import HERE, PYTHON

__all__ = ["Watch"]

_FRESH_S: Final = 1.0
_SLACK_S: Final = 0.05
"""The guests' clocks agree to less."""


class Watch:
    """Sees where victims run; `victims` are pairs of a PID and the address of its counter."""

    def __init__(self, victims: list[tuple[int, int]]) -> None:
        self._words = [f"{pid}:{at}" for pid, at in victims]
        self._ran: dict[str, list[tuple[float, float, set[int]]]] = {"src": [], "dst": []}
        self._looks: dict[str, int] = {"src": 0, "dst": 0}
        self._commands: list[Command] = []

    def begin(self, guest: Guest) -> None:
        """Watch a guest, until it or this ends."""
        command = guest.spawn([*PYTHON, f"{HERE}/sentry.py", *self._words])
        self._commands.append(command)
        threading.Thread(target=self._hear, args=(guest.name, command), daemon=True).start()

    def _hear(self, name: str, command: Command) -> None:
        try:
            for line in command.stdout.lines(60):
                said: dict[str, Any] = json.loads(line)
                self._looks[name] += 1
                if said["runs"]:
                    self._ran[name].append((said["from"], said["to"], set(said["runs"])))
        except (LabError, ValueError):
            pass

    def end(self) -> None:
        """End the sentries."""
        for command in self._commands:
            command.close()

    def runs(self) -> dict[int, list[str]]:
        """On which guests each PID counts now; takes a second."""
        before = {name: (len(ran), self._looks[name]) for name, ran in self._ran.items()}
        until = time.monotonic() + 30
        while time.monotonic() < until:
            time.sleep(_FRESH_S)
            # Of a guest that is down nothing comes, and nothing runs there.
            if all(self._looks[name] - looks >= 3 for name, (_, looks) in before.items()):
                break
        found: dict[int, list[str]] = {}
        for name, (ran, _) in before.items():
            for pid in set().union(*(pids for _, _, pids in self._ran[name][ran:])):
                found.setdefault(pid, []).append(name)
        return found

    def twice(self, pid: int) -> list[tuple[float, float]]:
        """When it ran on both at once: none of the looks in which it counted may overlap."""
        here = [(a, b) for a, b, pids in self._ran["src"] if pid in pids]
        there = [(a, b) for a, b, pids in self._ran["dst"] if pid in pids]
        return [
            (max(a, c), min(b, d))
            for a, b in here
            for c, d in there
            if min(b, d) - max(a, c) > _SLACK_S
        ]
