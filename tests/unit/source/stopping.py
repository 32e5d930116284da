"""A second lock that needs no cgroups, for tests of what is done in which order."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from phaul.cgroups import LockedGroup
from phaul.errors import CgroupError
from phaul.protocol.ownership import SourceState
from phaul.storage.journal import Journal, SourceRecord
from tests.unit.conftest import state

__all__ = ["Lock", "until"]


def until(fact: Callable[[], bool]) -> None:
    """Wait for what a signal brings about in a moment."""
    end = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.001)


class Lock:
    """A second lock that stops what it holds by SIGSTOP, and notes what the journal said then."""

    def __init__(self, journal: Journal[SourceRecord] | None = None) -> None:
        self.journal = journal
        self.done: list[tuple[str, SourceState | None]] = []
        self.fails: dict[str, CgroupError] = {}

    def warm(self) -> bool:
        return False

    def plan(self, _name: str, pids: Iterable[int]) -> tuple[LockedGroup, ...]:
        self._do("plan")
        return (LockedGroup(group="/phaul-x.lock", home="/", pids=tuple(pids)),)

    def take(self, groups: Iterable[LockedGroup]) -> None:
        self._do("take")
        groups = tuple(groups)
        self._signal(groups, signal.SIGSTOP)
        for pid in (pid for each in groups for pid in each.pids):
            until(lambda pid=pid: state(pid) == "T")  # type: ignore[misc]

    def give_back(self, groups: Iterable[LockedGroup]) -> None:
        self._do("give_back")
        self._signal(groups, signal.SIGCONT)

    def send_kill(self, groups: Iterable[LockedGroup]) -> None:
        self._do("send_kill")
        self._signal(groups, signal.SIGKILL)

    def kill(self, groups: Iterable[LockedGroup]) -> None:
        self._do("kill")
        self._signal(groups, signal.SIGKILL)

    def _do(self, what: str) -> None:
        record = self.journal.read() if self.journal is not None else None
        self.done.append((what, record.state if record is not None else None))
        if what in self.fails:
            raise self.fails[what]

    @staticmethod
    def _signal(groups: Iterable[LockedGroup], number: int) -> None:
        for pid in (pid for each in groups for pid in each.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
