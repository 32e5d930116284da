"""Groups for the tests of the lock and the cage, and looking at processes that cannot answer."""

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from phaul.cgroups import Cgroups
from tests.victims.harness import Report

WATCH_S = 0.3


class Group(Protocol):
    """Makes a group with those processes."""

    def __call__(self, name: str, pids: Iterable[int] = ()) -> str: ...


def make_groups() -> Iterator[Group]:
    """Makes groups, and removes them once they are empty."""
    cgroups = Cgroups.find()
    assert cgroups is not None, "cgroup v2 is not mounted here"
    made: list[str] = []

    def make(name: str, pids: Iterable[int] = ()) -> str:
        group = f"/{name}"
        cgroups.make(group)
        made.append(group)
        for pid in pids:
            cgroups.move(pid, group)
        return group

    yield make
    for group in made:
        cgroups.kill(group, 20)
        for folder, _, _ in os.walk(cgroups.point / group[1:], topdown=False):
            Path(folder).rmdir()


def groups_left() -> list[str]:
    """The groups that phaul has left."""
    cgroups = Cgroups.find()
    assert cgroups is not None
    return [folder for folder, _, _ in os.walk(cgroups.point) if "/phaul-" in folder]


def seen_counter(pid: int, report: Report) -> int:
    """A victim's counter, read in its memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        memory.seek(int(report.data["counter_at"]))
        return int(struct.unpack("<Q", memory.read(8))[0])


def stands_still(counter: Callable[[], int]) -> bool:
    """Whether it does not count in the 0.3 s that follow; a beat takes 5 ms."""
    first, until = counter(), time.monotonic() + WATCH_S
    while time.monotonic() < until:
        if counter() != first:
            return False
        time.sleep(0.01)
    return True


def tracer(pid: int) -> int | None:
    """Who traces a process; None if it is gone, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return None if "Z" in fields["State"] else int(fields["TracerPid"])
