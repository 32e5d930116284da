"""The cage: the restoring CRIU, and what it made, in cgroups of their own, to be ended precisely.

Used in the cutover, on the destination.  A CRIU that is killed leaves behind what it has restored
so far: stopped for good, and with nobody who knows it (its tasks wait for a word of CRIU's).  CRIU
moves the tasks out of its own group if they were in another one than CRIU on the source; so they
are caged a second time, where they are then.

    prepare --> hold (the worker, before its request) --> gather (the tree, held) --> leave
                  |                                         |
                  +-----------------------------------------+--> kill
"""

import ctypes
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import anyio

from phaul.cgroups import Cgroups, LockedGroup
from phaul.destination.warmth import Warmth
from phaul.errors import CgroupError, SubjectError
from phaul.incarnation import Incarnation
from phaul.subjects.apart import Apart
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids

__all__ = ["Cage", "criu_ended", "kill_caged", "leave_caged"]

_HOST: Final = "destination"
_PR_SET_CHILD_SUBREAPER: Final = 36
_WAIT_S: Final = 10.0
_PAUSE_S: Final = 0.002

_logger = logging.getLogger("phaul")


class Cage:
    """The cage of one migration, `name`, for one restore; all methods block.

    Nothing fails for the lack of cgroup v2, or of a group that can be seen from here: then what is
    half restored is found as this process's orphans, as long as this process lives.  `cgroups` is
    another hierarchy than this host's, for tests.
    """

    def __init__(self, name: str, cgroups: Cgroups | None = None) -> None:
        self._name = name
        self._apart = _apart(cgroups)
        self._proc = Proc(cgroups.proc) if cgroups is not None else Proc()
        self._own: LockedGroup | None = None
        self._others: tuple[LockedGroup, ...] = ()
        self._worker = -1
        self._workers: set[int] = set()
        self._prepared: set[int] = set()
        self._since = 0
        self._adopts = self._over = False
        self._lock = threading.Lock()
        self._warmth = Warmth(self._apart)

    @property
    def groups(self) -> tuple[LockedGroup, ...]:
        """All that is caged, for a journal: `kill_caged` ends it when this process is gone."""
        return (*((self._own,) if self._own else ()), *self._others)

    def foreseen(self) -> tuple[LockedGroup, ...]:
        """What will be in `groups` from the first worker on: for a journal, before it is made."""
        with suppress(CgroupError):
            return (self._planned(),)
        return ()

    def keep_warm(self) -> None:
        """The restore may come soon: see that it waits for no cgroups.  Does not block."""
        self._warmth.begin()

    def prepare(self, pid: int) -> None:
        """Put a worker of CRIU in that may become the restoring one; it is idle, or will be.

        It takes 5 to 20 ms (see Apart), and so is done before the freeze; `hold` takes 0.2 ms then.
        """
        with self._lock:
            self._put_in(pid)

    def holds_at_once(self, pid: int) -> bool:
        """Whether `hold` waits for nothing: the worker is in already."""
        return pid in self._prepared

    def hold(self, pid: int) -> None:
        """Put the restoring worker in, before it is asked for anything."""
        with self._lock:
            if self._over:
                return
            self._put_in(pid)
            self._forget_worker()
            with suppress(ProcessLookupError):
                self._worker = os.pidfd_open(pid)
            self._since = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
            # What loses its CRIU before it was gathered comes to this process: so it is found.
            self._adopt(True)

    def _put_in(self, pid: int) -> None:
        if self._over:
            return
        self._workers.add(pid)
        try:
            own = self._own or self._make()
            if self._apart.cgroups.group_of(pid) != own.group:
                self._apart.cgroups.move(pid, own.group)
            self._prepared.add(pid)
        except CgroupError as error:
            _logger.debug("no cage: %s", error)

    def _make(self) -> LockedGroup:
        own = self._planned()
        self._apart.cgroups.make(own.group)
        self._own = own
        return own

    def _planned(self) -> LockedGroup:
        home = self._apart.cgroups.group_of("self")
        assert home is not None
        return self._apart.child(home, self._name, ())

    def gather(self, root: int) -> None:
        """Cage the restored tree below `root`, where CRIU moved it out.

        1 ms for one process, some 60 ms for 200, in which it may be let go: a child that is born
        meanwhile is where its parent is, and `leave` takes all of them back.
        """
        with self._lock:
            if self._own is not None:
                self._gather(root, self._own.group)

    def _gather(self, root: int, own: str) -> None:
        try:
            tree = tree_pids(root, self._proc)
            groups = self._apart.plan(self._name, tree, leave_out={own})
            self._apart.take(groups, existing={own})
        except (CgroupError, SubjectError) as error:
            _logger.warning("the restored tree is not caged: %s", error)
        else:
            self._others = tuple(each for each in groups if each.group != own)
            self._adopt(False)

    def disown(self) -> None:
        """The copy is let go: its orphans are not this process's, whether it is gathered or not.

        Those that came before stay this process's: `kill` still ends and reaps them.  Does not
        wait.
        """
        self._warmth.end()
        self._adopt(False)

    def leave(self) -> None:
        """Move all that is caged back to the groups that it was in, and remove the cage."""
        self._warmth.join()
        with self._lock:
            self._over = True
            self._adopt(False)
            self._forget_worker()
            self._since = 0
            try:
                self._apart.give_back(self.groups)
            except CgroupError as error:
                _logger.warning("left in the cage: %s", error)
            else:
                self._own, self._others = None, ()

    def kill(self) -> None:
        """End all that is caged, and what CRIU had made and moved out; it is gone on return.

        Raises CgroupError if something is left.
        """
        self._warmth.join()
        with self._lock:
            self._over = True
            try:
                try:
                    self._apart.kill(self.groups)
                finally:
                    self._kill_adopted()
            finally:
                self._adopt(False)
                self._forget_worker()
                self._since = 0  # what comes later is another restore's
            self._own, self._others = None, ()

    def _adopt(self, adopt: bool) -> None:
        """Whether orphans below this process become its children (PR_SET_CHILD_SUBREAPER)."""
        if adopt is not self._adopts:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)
            self._adopts = adopt

    def _forget_worker(self) -> None:
        if self._worker >= 0:
            os.close(self._worker)
            self._worker = -1

    def _kill_adopted(self) -> None:
        """End the tasks of a CRIU that died before they were gathered, and was to move them out.

        All else that this process has started is in its own group; what was killed is reaped: until
        then its PID is taken, also for the next restore.
        """
        if not self._since:
            return  # nothing was held, or it is over
        until = time.monotonic() + _WAIT_S
        if self._adopts and self._worker >= 0:
            _ended(self._worker, _WAIT_S)  # only then are they this process's
        while strays := self._strays():
            if time.monotonic() > until:
                raise CgroupError(f"still there: PID {strays[0]}, half restored", host=_HOST)
            for pid in reversed(strays):  # children first, as far as that goes
                _end(pid)
            time.sleep(_PAUSE_S)

    def _strays(self) -> list[int]:
        """What is below this process, in no group that it starts anything in; zombies too.

        CRIU may have moved it into this process's own group, too.  There it is told by its parent,
        which this process has become: since `hold` it has started nothing itself.  What came to it
        in that way stays below it when it adopts no more; then its groups tell nothing of others.
        """
        me, usual = os.getpid(), self._usual() if self._adopts else None
        found: dict[int, None] = {}

        def apart(pid: int) -> bool:
            if usual is None:
                return False  # until its parent is ended
            try:
                return self._apart.cgroups.group_of(pid) not in usual
            except CgroupError:  # one that is removed, or is out of sight
                return True

        for pid in tree_pids(me, self._proc):  # parents first
            stat = self._proc.process(pid)
            if stat is None or stat.start < self._since or pid in {me, *self._workers}:
                continue
            if stat.parent == me or stat.parent in found or apart(pid):
                found[pid] = None
        return list(found)

    def _usual(self) -> set[str | None] | None:
        """The groups in which this process starts what it starts; None where they are unknown."""
        try:
            mine = self._apart.cgroups.group_of(os.getpid())
        except CgroupError:
            return None
        return {mine, self._own.home if self._own is not None else mine, None}


async def criu_ended(groups: Iterable[LockedGroup], timeout: float) -> None:
    """Wait until a CRIU that lost its agent has done what it was at; then it is killed.

    It is the one of the caged whose name is CRIU's; a tree that is a CRIU itself is not restored.
    """
    apart = _apart(None)
    until = time.monotonic() + timeout
    while found := _crius(apart, groups):
        if time.monotonic() > until:
            for one in found:
                one.signal(signal.SIGKILL)
            until = time.monotonic() + timeout
        await anyio.sleep(0.02)


def _crius(apart: Apart, groups: Iterable[LockedGroup]) -> list[Incarnation]:
    found = []
    with suppress(CgroupError):
        for each in groups:
            for pid in apart.cgroups.members(each.group):
                stat = Proc(apart.cgroups.proc).process(pid)
                one = Incarnation.of(pid) if stat and stat.name == "criu" else None
                found += [one] if one is not None else []
    return found


def leave_caged(groups: Iterable[LockedGroup], cgroups: Cgroups | None = None) -> None:
    """Let a tree that runs out of the cage of an agent that is dead; raises CgroupError."""
    _apart(cgroups).give_back(groups)


def kill_caged(groups: Iterable[LockedGroup], cgroups: Cgroups | None = None) -> None:
    """End what a cage of another process holds, by its journal; raises CgroupError."""
    _apart(cgroups).kill(groups)


def _apart(cgroups: Cgroups | None) -> Apart:
    return Apart(".cage", freeze=False, host=_HOST, cgroups=cgroups)


def _end(pid: int) -> None:
    """Kill a process that is below this one, and reap it if it is a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if _ended(descriptor, 1.0):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(descriptor)


def _ended(descriptor: int, timeout: float) -> bool:
    ends = select.poll()
    ends.register(descriptor, select.POLLIN)
    return bool(ends.poll(timeout * 1000))
