"""A stand-in for what slows a tree down, which writes down what is done to it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from phaul.errors import CgroupError
from phaul.report import Round
from phaul.source.owed import Owed
from phaul.subjects.slow import SlowedGroup, TreeSlow

__all__ = ["HOME", "ROUND", "FakeSlow", "record"]

HOME = "/unit"
ROUND = Round(number=0, pages=1, shared_pages=0, skipped_pages=0, frozen_s=0.001, seconds=0.1)


class FakeSlow(TreeSlow):
    """Has one group, the process's own, and writes down what is done to it."""

    def __init__(self, pid: int, file: Path) -> None:
        self.pid = pid
        self.file = file
        self.done: list[str] = []
        self.refuses: set[str] = set()

    def plan(self, name: str, pids: Iterable[int]) -> tuple[SlowedGroup, ...]:
        assert self.pid in pids
        return (SlowedGroup(group=HOME, home=HOME, before="max 100000"),)

    def inside(self, groups: Iterable[SlowedGroup], pids: Iterable[int]) -> dict[str, list[int]]:
        return {each.group: list(pids) for each in groups}

    def take(self, groups: Iterable[SlowedGroup], root: int) -> None:
        self._do("take")

    def limit(self, limits: Mapping[str, str]) -> None:
        self._do(f"limit {limits[HOME]}")

    def lift(self, groups: Iterable[SlowedGroup]) -> None:
        self._do("lift")

    def give_back(self, groups: Iterable[SlowedGroup]) -> None:
        self._do("give back")

    def _do(self, what: str) -> None:
        assert self.file.exists(), "it is written down before, and until it is given back"
        if what.partition(" ")[0] == "limit":
            assert what.removeprefix("limit ") in record(self.file).groups[0].ours
        self.done.append(what)
        if what.split()[0] in self.refuses:
            raise CgroupError(f"{what} is refused")


def record(file: Path) -> Owed:
    return msgspec.json.decode(file.read_bytes(), type=Owed)
