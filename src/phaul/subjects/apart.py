"""A tree set apart: its processes in cgroups of their own, each below the one that it was in.

Used in the cutover: on the source frozen, as the second lock; on the destination as they are, so
that they can be ended; and by `phaul resolve`.  A group that holds processes may always have
children; its limits go on to hold for them, and to systemd the unit goes on to have processes.

    plan --> (journal) --> take --+--> give_back
                                  +--> kill
"""

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

from phaul.cgroups import Cgroups, LockedGroup, is_zombie
from phaul.errors import CgroupError, LockUnavailable

__all__ = ["PREFIX", "WARM_S", "Apart"]

PREFIX: Final = "phaul-"
WARM_S: Final = 0.008
"""So often `Apart.warm` spares a wait: a kernel whose groups were changed 15 ms ago has none,
one of 20 ms ago has."""
_WAIT_S: Final = 10.0
_ROUNDS: Final = 100
"""How often a group is emptied that those in it fill by forking."""
_NO_CGROUPS: Final = "cgroup v2 is not mounted here"
_REMEDY: Final = "mount it: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2"


class Apart:
    """Sets trees apart in groups called phaul-NAME`suffix`; with `freeze` they stand still there.

    `cgroups` is another hierarchy than this host's, for tests.  All methods block: an asynchronous
    caller gives them a thread.  Natively, medians of 8 on a busy machine of two processors:

                            1 process       200 processes
        plan                0.3 ms          18 ms
        take                15 ms           14 ms
        give_back           8 ms            16 ms
        kill                0.4 ms          32 ms

    A first move waits for an RCU grace period, some 7 to 20 ms; each one soon after it takes
    0.03 ms.
    """

    def __init__(
        self, suffix: str, *, freeze: bool, host: str, cgroups: Cgroups | None = None
    ) -> None:
        self._suffix = suffix
        self._freeze = freeze
        self._host = host
        self._found = cgroups or Cgroups.find(host)

    @property
    def cgroups(self) -> Cgroups:
        """The hierarchy; raises LockUnavailable where there is none."""
        if self._found is None:
            raise LockUnavailable(_NO_CGROUPS, host=self._host, remedy=_REMEDY)
        return self._found

    def warm(self) -> bool:
        """Have who changes groups next not wait for the kernel's readers, for the 15 ms to come.

        The first change after a rest waits for an RCU grace period (see rcu_sync in the kernel's
        cgroup_threadgroup_rwsem); so one is made that changes nothing: this process is moved to
        where it is.  False where that cannot be: then the next one waits.
        """
        with suppress(CgroupError):
            own = self.cgroups.group_of("self")
            return own is not None and self.cgroups.move(os.getpid(), own)
        return False

    def plan(
        self, name: str, pids: Iterable[int], leave_out: Collection[str] = ()
    ) -> tuple[LockedGroup, ...]:
        """What `take` is going to do to the processes; nothing is done.

        `name` is the migration's ID.  Processes that are gone, or zombies, are left out, and those
        in the groups `leave_out`.  Raises LockUnavailable where a process cannot be set apart.
        """
        found: dict[str, list[int]] = {}
        for pid in dict.fromkeys(pids):
            home = self._home(pid)
            if home is not None and home not in leave_out:
                found.setdefault(home, []).append(pid)
        for home in found:
            if self.cgroups.kind(home) != "domain":
                raise LockUnavailable(f"cgroup {home} is a threaded one", host=self._host)
        return tuple(self.child(home, name, inside) for home, inside in found.items())

    def child(self, home: str, name: str, pids: Iterable[int]) -> LockedGroup:
        """The group for those processes of `home`."""
        group = f"{home.rstrip('/')}/{PREFIX}{name}{self._suffix}"
        return LockedGroup(group=group, home=home, pids=tuple(pids))

    def _home(self, pid: int) -> str | None:
        cgroups = self.cgroups
        if is_zombie(pid, cgroups.proc):
            return None
        threads: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):
            threads = os.listdir(cgroups.proc / str(pid) / "task")  # noqa: PTH208
        try:
            home = cgroups.group_of(pid)
            if home is None:
                return None
            others = {cgroups.group_of(f"{pid}/task/{tid}") for tid in threads if tid != str(pid)}
            home.encode()
        except CgroupError as error:
            raise LockUnavailable(error.what, host=self._host) from error
        except UnicodeEncodeError:
            what = f"the name of cgroup {home!r} is no text"
            raise LockUnavailable(what, host=self._host) from None
        if others - {home, None}:
            raise LockUnavailable(f"threads of PID {pid} are in several cgroups", host=self._host)
        return home

    def take(self, groups: Iterable[LockedGroup], existing: Collection[str] = ()) -> None:
        """Move the processes into their groups, and if they are to, wait until all stand still.

        Groups that are `existing` are not made.  Raises CgroupError; then all that was moved has
        been given back, or the error's notes say what was not.
        """
        cgroups, groups = self.cgroups, tuple(groups)
        begun: list[LockedGroup] = []
        try:
            for each in groups:
                self._check(each)
                if each.group not in existing:
                    cgroups.make(each.group)
                    begun.append(each)
                if self._freeze:  # first: what is moved is held from its first moment there
                    cgroups.freeze(each.group)
                for pid in each.pids:
                    cgroups.move(pid, each.group)
            for each in groups:
                if self._freeze:
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
        after the processes were killed.  It goes on after a failure; then it raises CgroupError, a
        note for each further one.  What could not be moved home is thawed where it is.
        """
        self._for_each(groups, self._empty)

    def kill(self, groups: Iterable[LockedGroup]) -> None:
        """Kill all that is in the groups, wait until it is gone, and remove them.

        May be called again; raises CgroupError as `give_back` does.
        """
        self._for_each(groups, self._kill)

    def send_kill(self, groups: Iterable[LockedGroup]) -> None:
        """Send SIGKILL to all that is in the groups, where the kernel can do that at once.

        Raises CgroupError as `give_back` does; waits for nothing.
        """
        self._for_each(groups, self._send_kill)

    def left(self, groups: Iterable[LockedGroup]) -> tuple[int, ...]:
        """The processes that are in the groups now, zombies aside; raises CgroupError."""
        found: list[int] = []
        for each in groups:
            self._check(each)
            found += self.cgroups.members(each.group)
        return tuple(found)

    def _for_each(self, groups: Iterable[LockedGroup], act: Callable[[LockedGroup], None]) -> None:
        failures: list[CgroupError] = []
        for each in groups:
            try:
                self._check(each)
                act(each)
            except CgroupError as error:
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]

    def _empty(self, each: LockedGroup) -> None:
        cgroups = self.cgroups
        if not cgroups.exists(each.group):
            return
        stuck: dict[int, CgroupError] = {}
        # While they are frozen: what is still to be moved cannot fork.
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
        self.cgroups.kill(each.group, _WAIT_S)
        self.cgroups.remove(each.group)

    def _send_kill(self, each: LockedGroup) -> None:
        self.cgroups.send_kill(each.group)

    def _check(self, each: LockedGroup) -> None:
        """Whether it is such as `plan` makes; Cgroups looks for names that climb."""
        parent, _, name = each.group.rpartition("/")
        if parent != each.home.rstrip("/") or not name.startswith(PREFIX):
            raise CgroupError(f"{each.group!r} is no group of phaul's", host=self._host)
