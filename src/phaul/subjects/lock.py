"""The second lock: the tree stands still in frozen cgroups, whatever becomes of phaul and of CRIU.

Taken in the cutover, on the source, while CRIU holds the tree in `post-dump`.  CRIU's own hold is
ptrace's: it ends with CRIU, and CRIU ends with phaul.  A frozen group lasts until somebody thaws it.

For each group that the tree is in, a child of it is made, and the tree's processes of that group
moved there and frozen.  A group that holds processes may always have children; its limits go on to
hold for them, and to systemd the unit goes on to have processes.

    available --> plan --> (journal) --> take --+--> give_back     runs on here
                                                +--> CRIU kills the tree --> give_back  removes
                                                +--> kill          ends what is left of it
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from phaul.cgroups import Cgroups, LockedGroup, is_zombie
from phaul.errors import CgroupError, LockUnavailable

__all__ = ["TreeLock"]

HOST: Final = "source"
_SUFFIX: Final = ".lock"
_PREFIX: Final = "phaul-"
_WAIT_S: Final = 10.0
_ROUNDS: Final = 100
"""How often a group is emptied that others fill."""
_NO_CGROUPS: Final = "cgroup v2 is not mounted here"
_REMEDY: Final = "mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none $_"


class TreeLock:
    """The second lock on this host; `cgroups` is another hierarchy than this host's, for tests.

    All methods block, `take` and `give_back` for less than 0.1 ms a process: an asynchronous
    caller gives them a thread.
    """

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._found = cgroups or Cgroups.find(HOST)

    def available(self, pids: Iterable[int]) -> None:
        """Raise LockUnavailable, with the reason, if the tree could not be locked now.

        Nothing that stays is changed: a child of each group is made, and removed.
        """
        groups = self.plan(f"try-{os.getpid()}", pids)
        for each in groups:
            self._try(each)

    def _try(self, each: LockedGroup) -> None:
        cgroups = self._cgroups()
        try:
            cgroups.make(each.group)
            try:
                if cgroups.kind(each.group) != "domain":
                    raise LockUnavailable(f"cgroup {each.home} is a threaded one", host=HOST)
                if not cgroups.can_freeze(each.group):
                    raise LockUnavailable(
                        "this kernel cannot freeze a cgroup", host=HOST, remedy="Linux 5.2 can"
                    )
            finally:
                cgroups.remove(each.group)
        except LockUnavailable:
            raise
        except CgroupError as error:
            raise LockUnavailable(error.what, host=HOST, remedy=error.remedy) from error

    def plan(self, name: str, pids: Iterable[int]) -> tuple[LockedGroup, ...]:
        """What `take` is going to do to the processes; nothing is done.

        `name` is the migration's ID.  Processes that are gone, or zombies, are left out.  Raises
        LockUnavailable if there is nothing to lock them with.
        """
        cgroups = self._cgroups()
        found: dict[str, list[int]] = {}
        for pid in dict.fromkeys(pids):
            if (home := self._home(pid)) is not None:
                found.setdefault(home, []).append(pid)
        for home in found:
            if cgroups.kind(home) != "domain":
                raise LockUnavailable(f"cgroup {home} is a threaded one", host=HOST)
        child = f"/{_PREFIX}{name}{_SUFFIX}"
        return tuple(
            LockedGroup(group=home.rstrip("/") + child, home=home, pids=tuple(inside))
            for home, inside in found.items()
        )

    def _home(self, pid: int) -> str | None:
        cgroups = self._cgroups()
        if is_zombie(pid, cgroups.proc):
            return None
        try:
            home = cgroups.group_of(pid)
            threads: list[str] = []
            with suppress(FileNotFoundError, ProcessLookupError):
                threads = os.listdir(cgroups.proc / str(pid) / "task")  # noqa: PTH208
            apart = {cgroups.group_of(f"{pid}/task/{thread}") for thread in threads}
        except CgroupError as error:
            raise LockUnavailable(error.what, host=HOST) from error
        if home is None:
            return None
        if apart - {home, None}:
            raise LockUnavailable(f"the threads of PID {pid} are in several cgroups", host=HOST)
        try:
            home.encode()
        except UnicodeEncodeError:
            raise LockUnavailable(f"the name of cgroup {home!r} is no text", host=HOST) from None
        return home

    def take(self, groups: Iterable[LockedGroup]) -> None:
        """Move the processes into their groups, and wait until all stand still.

        Raises CgroupError; then all that was moved has been given back, or the error's notes say
        what was not.
        """
        cgroups, groups = self._cgroups(), self._checked(groups)
        begun: list[LockedGroup] = []
        try:
            for each in groups:
                cgroups.make(each.group)
                begun.append(each)
                # First: what is moved is then held from its first moment there.
                cgroups.freeze(each.group)
                for pid in each.pids:
                    cgroups.move(pid, each.group)
            for each in groups:
                cgroups.wait_frozen(each.group, _WAIT_S)
        except CgroupError as error:
            try:
                self.give_back(begun)
            except CgroupError as left:
                error.add_note(str(left))
            raise

    def give_back(self, groups: Iterable[LockedGroup]) -> None:
        """Move all that is in the groups home, where it runs unless another holds it; remove them.

        What was done already is left as it is, and so is what is gone: it may be called again, and
        after CRIU has killed the tree.  It goes on after a failure; then it raises CgroupError, a
        note for each further one.  What could not be moved home is thawed where it is.
        """
        self._for_each(groups, self._empty)

    def kill(self, groups: Iterable[LockedGroup]) -> None:
        """Kill all that is in the groups, wait until it is gone, and remove them.

        May be called again; raises CgroupError as `give_back` does.
        """
        self._for_each(groups, self._kill)

    def left(self, groups: Iterable[LockedGroup]) -> tuple[int, ...]:
        """The processes that are in the groups now; raises CgroupError."""
        cgroups = self._cgroups()
        return tuple(pid for each in self._checked(groups) for pid in cgroups.members(each.group))

    def _for_each(self, groups: Iterable[LockedGroup], act: Callable[[LockedGroup], None]) -> None:
        failures: list[CgroupError] = []
        for each in groups:
            try:
                self._checked((each,))
                act(each)
            except CgroupError as error:
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]

    def _empty(self, each: LockedGroup) -> None:
        cgroups = self._cgroups()
        if not cgroups.exists(each.group):
            return
        stuck: dict[int, CgroupError] = {}
        # One by one while they are frozen: what is still here cannot fork.
        for _ in range(_ROUNDS):
            inside = [pid for pid in cgroups.members(each.group) if pid not in stuck]
            if not inside:
                break
            for pid in inside:
                try:
                    cgroups.move(pid, each.home)
                except CgroupError as error:
                    stuck[pid] = error
        cgroups.thaw(each.group)
        if stuck:
            raise next(iter(stuck.values()))
        cgroups.wait_empty(each.group, _WAIT_S)
        cgroups.remove(each.group)

    def _kill(self, each: LockedGroup) -> None:
        cgroups = self._cgroups()
        cgroups.kill(each.group, _WAIT_S)
        cgroups.remove(each.group)

    def _checked(self, groups: Iterable[LockedGroup]) -> tuple[LockedGroup, ...]:
        """The groups, if they are such as `plan` makes; Cgroups looks for names that climb."""
        checked = tuple(groups)
        for each in checked:
            parent, _, name = each.group.rpartition("/")
            if parent != each.home.rstrip("/") or not name.startswith(_PREFIX):
                raise CgroupError(f"{each.group!r} is no group of phaul's", host=HOST)
        return checked

    def _cgroups(self) -> Cgroups:
        if self._found is None:
            raise LockUnavailable(_NO_CGROUPS, host=HOST, remedy=_REMEDY)
        return self._found
