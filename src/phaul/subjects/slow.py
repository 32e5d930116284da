"""A tree is slowed down: its processes in cgroups whose CPU time is limited, and given back.

Used on the source, in the pre-copy, while the process runs; and by whoever comes after a phaul that
died.  Where a group holds nothing but processes of the tree, its own `cpu.max` is set.  Where it
holds others too, the tree's go into a child of it: a threaded one, as only such may have the
controller `cpu` beside processes in the group itself.  To systemd the unit goes on to have them.
The root of all has no limit, and its children are ordinary ones.

    plan --> (written down) --> take --> limit, lift, limit ... --> give_back
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from phaul.cgroups import Cgroups, GroupPath, LockedGroup
from phaul.errors import CgroupError
from phaul.protocol.preflight import Finding, Level, Where
from phaul.subjects.apart import PREFIX, Apart
from phaul.subjects.proc import Proc
from phaul.subjects.quota import UNLIMITED, parse, quota_for, tighter
from phaul.subjects.tree import tree_pids

__all__ = ["SlowedGroup", "TreeSlow", "slowable", "spent"]

_HOST: Final = "source"
_CHECK: Final = "throttle"
_SUFFIX: Final = ".slow"
_MAX: Final = "cpu.max"
_CONTROL: Final = "cgroup.subtree_control"
_WALKS: Final = 20
_MOST_TEXT: Final = 1000
_NO_CPU: Final = "cgroup v2 has no controller of CPU time here"
_NO_CPU_REMEDY: Final = "leave it to version 2: boot with systemd.unified_cgroup_hierarchy=1"

_USUAL: Final = {_MAX: (UNLIMITED,), "cpu.weight": ("100",), "cpu.idle": ("0",)}
"""What a group has that has just got the controller."""

CpuMax = Annotated[str, Meta(pattern=r"^(?:max|[0-9]{1,18}) [0-9]{1,9}\Z")]


class SlowedGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a tree that is slowed down in `group`: in `home`, where it was, or a child of it.

    `before` is what limited `home` itself, None where it is a child that is limited; `ours` are all
    limits that were set since.  `passed` are the groups, from the top, that were made to pass the
    controller on.  It is kept in a file, and so is checked again where it is used.
    """

    group: GroupPath
    home: GroupPath
    before: CpuMax | None = None
    ours: Annotated[tuple[CpuMax, ...], Meta(max_length=10_000)] = ()
    passed: Annotated[tuple[GroupPath, ...], Meta(max_length=1000)] = ()


class TreeSlow:
    """Slows trees down on this host; `cgroups` is another hierarchy than this host's, for tests.

    All methods block, for some 20 ms where groups are made, moved to or removed; `limit` and `lift`
    for less than one.
    """

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._apart = Apart(_SUFFIX, freeze=False, host=_HOST, cgroups=cgroups)

    def available(self, pids: Iterable[int]) -> None:
        """Raise CgroupError, with the reason, if the tree could not be slowed down now.

        Nothing that stays is changed: what is going to be made is made, and removed.
        """
        groups = self.plan(f"try-{os.getpid()}-{threading.get_native_id()}", pids)
        try:
            for each in groups:
                self._make(each)
        finally:
            self.give_back(groups)

    def plan(self, name: str, pids: Iterable[int]) -> tuple[SlowedGroup, ...]:
        """What `take` is going to do to the processes; nothing is done.

        `name` is the migration's ID.  Raises CgroupError where that cannot be.
        """
        cgroups = self._apart.cgroups
        if "cpu" not in (cgroups.value("/", "cgroup.controllers") or "").split():
            raise CgroupError(_NO_CPU, host=_HOST, remedy=_NO_CPU_REMEDY)
        tree = set(pids)
        found: list[SlowedGroup] = []
        for each in sorted(self._apart.plan(name, tree), key=lambda locked: locked.home):
            if any(other.before and _within(each.home, other.home) for other in found):
                continue  # the limit above holds for it too
            found.append(self._planned(each, tree))
        return tuple(found)

    def _planned(self, each: LockedGroup, tree: set[int]) -> SlowedGroup:
        cgroups, home = self._apart.cgroups, each.home
        before = None
        if cgroups.value(home, "cgroup.type") is not None and self._is_alone(home, tree):
            before = cgroups.value(home, _MAX) or UNLIMITED
        above = list(_chain(home))
        above = above[:-1] if before else above
        passed = [g for g in above if "cpu" not in (cgroups.value(g, _CONTROL) or "").split()]
        group = home if before else each.group
        return SlowedGroup(group=group, home=home, before=before, passed=tuple(passed))

    def _is_alone(self, home: str, tree: set[int]) -> bool:
        """Whether nothing but processes of the tree is in a group, and below it."""
        cgroups = self._apart.cgroups
        return all(set(cgroups.members(group)) <= tree for group in cgroups.below(home))

    def take(self, groups: Iterable[SlowedGroup], root: int) -> None:
        """Have the tree below `root` in the groups, not limited yet; raises CgroupError.

        Then what was done has to be given back.
        """
        groups = tuple(groups)
        for each in groups:
            self._make(each)
        # What was born in the home of one that was not moved yet is found by looking again.
        for _ in range(_WALKS):
            tree = tree_pids(root, Proc(self._apart.cgroups.proc))
            if not self._move(groups, tree):
                break

    def _make(self, each: SlowedGroup) -> None:
        cgroups = self._apart.cgroups
        self._check(each)
        self._pass_on(each)
        if each.before is None:
            cgroups.make(each.group)
            if cgroups.kind(each.group) != "domain" or cgroups.kind(each.home) != "domain":
                cgroups.set_value(each.group, "cgroup.type", "threaded")
        if cgroups.value(each.group, _MAX) is None:
            raise CgroupError(f"cgroup {each.group} has no {_MAX}", host=_HOST)

    def _pass_on(self, each: SlowedGroup) -> None:
        for group in each.passed:
            self._apart.cgroups.set_value(group, _CONTROL, "+cpu")

    def _move(self, groups: tuple[SlowedGroup, ...], pids: Iterable[int]) -> int:
        cgroups = self._apart.cgroups
        children = {each.home: each.group for each in groups if each.before is None}
        moved = 0
        for pid in pids if children else ():
            group = children.get(cgroups.group_of(pid) or "")
            if group is not None:
                moved += cgroups.move(pid, group)
        return moved

    def inside(self, groups: Iterable[SlowedGroup], pids: Iterable[int]) -> dict[str, list[int]]:
        """Which processes are in which of the groups, or are going to be; by `group`."""
        found: dict[str, list[int]] = {each.group: [] for each in groups}
        for pid in pids:
            with suppress(CgroupError):
                home = self._apart.cgroups.group_of(pid) or ""
                for each in groups:
                    if _within(home, each.group) or home == each.home:
                        found[each.group].append(pid)
                        break
        return found

    @staticmethod
    def limited(each: SlowedGroup, cpus: float) -> tuple[SlowedGroup, str]:
        """The group as it is written down, and what `limit` is to say, for so many processors."""
        text = tighter(quota_for(cpus), each.before or UNLIMITED)
        if text in each.ours:
            return each, text
        return msgspec.structs.replace(each, ours=(*each.ours, text)), text

    def limit(self, limits: Mapping[str, str]) -> None:
        """Set the limits, by group; raises CgroupError."""
        for group, text in limits.items():
            self._apart.cgroups.set_value(group, _MAX, text)

    def lift(self, groups: Iterable[SlowedGroup]) -> None:
        """Take the limits off for a while; raises CgroupError."""
        for each in groups:
            self._apart.cgroups.set_value(each.group, _MAX, each.before or UNLIMITED)

    def give_back(self, groups: Iterable[SlowedGroup]) -> None:
        """Have all as it was before `take`.

        What was done already is left as it is, and so is what is gone, or has been changed by
        somebody else: it may be called again.  It goes on after a failure; then it raises
        CgroupError, a note for each further one.
        """
        groups = tuple(groups)
        failures: list[CgroupError] = []
        for each in groups:
            try:
                self._check(each)
                self._give_back(each)
            except CgroupError as error:
                failures.append(error)
        passed = {group for each in groups for group in each.passed}
        for group in sorted(passed, key=len, reverse=True):
            # Somebody else may have come to need it since, or removed the group.
            with suppress(CgroupError):
                if not self._is_used(group):
                    self._apart.cgroups.set_value(group, _CONTROL, "-cpu")
        if failures:
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]

    def _is_used(self, group: str) -> bool:
        """Whether a child of a group has something set that it would lose with the controller."""
        cgroups = self._apart.cgroups
        return any(
            cgroups.value(child, name) not in (None, *usual)
            for child in cgroups.below(group)
            if child != group and _parent(child) == group
            for name, usual in _USUAL.items()
        )

    def _give_back(self, each: SlowedGroup) -> None:
        cgroups = self._apart.cgroups
        if each.before is None:
            self._empty(each)
        elif cgroups.value(each.group, _MAX) in each.ours:
            try:
                cgroups.set_value(each.group, _MAX, each.before)
            except CgroupError:
                if cgroups.exists(each.group):
                    raise

    def _empty(self, each: SlowedGroup) -> None:
        cgroups = self._apart.cgroups
        if not cgroups.exists(each.group):
            return
        with suppress(CgroupError):  # first, so that nothing is slow while it is moved
            cgroups.set_value(each.group, _MAX, UNLIMITED)
        for _ in range(_WALKS):
            # A threaded group tells its threads only; each takes its whole process along.
            inside = (cgroups.value(each.group, "cgroup.threads") or "").split()
            if not [cgroups.move(int(task), each.home) for task in inside]:
                break
        cgroups.wait_empty(each.group, 1.0)
        cgroups.remove(each.group)

    def _check(self, each: SlowedGroup) -> None:
        """Whether it is such as `plan` makes; Cgroups looks for names that climb."""
        parent, _, name = each.group.rpartition("/")
        ours = parent == each.home.rstrip("/") and name.startswith(PREFIX)
        ours = ours and name.endswith(_SUFFIX)
        if not (ours if each.before is None else each.group == each.home):
            raise CgroupError(f"{each.group!r} is no group that is slowed down", host=_HOST)
        if not all(_within(each.home, group) for group in each.passed):
            raise CgroupError(f"{each.home!r} is not in what passed it on", host=_HOST)
        if each.before is not None:
            parse(each.before)


def spent(pids: Iterable[int], proc: Proc | None = None) -> dict[int, float]:
    """The CPU seconds of each process, and of its children that it has reaped; without the gone."""
    proc = proc or Proc()
    tick = os.sysconf("SC_CLK_TCK")
    return {pid: stat.cpu / tick for pid in pids if (stat := proc.process(pid)) is not None}


def slowable(pids: Iterable[int], slow: TreeSlow | None = None) -> Finding:
    """The finding of `throttle` for a tree: whether it could be slowed down now.  Blocks."""
    try:
        (TreeSlow() if slow is None else slow).available(pids)
    except CgroupError as error:
        return Finding(
            check=_CHECK,
            level=Level.NO,
            where=Where.SOURCE,
            what=f"it cannot be slowed down: {error.what[:_MOST_TEXT]}",
            remedy=error.remedy or "choose cancel or cutover (--on-timeout)",
        )
    what = "it can be slowed down, if the rounds do not come to the downtime"
    return Finding(check=_CHECK, level=Level.OK, where=Where.SOURCE, what=what)


def _chain(group: str) -> Iterator[str]:
    """The groups from the top down to `group`."""
    yield "/"
    path = ""
    for part in group.split("/")[1:] if group != "/" else ():
        path += f"/{part}"
        yield path


def _parent(group: str) -> str:
    return group.rpartition("/")[0] or "/"


def _within(group: str, other: str) -> bool:
    return group == other or group.startswith(other.rstrip("/") + "/")
