"""Whose the process is, on the source: each step of the cutover written down, and the second lock.

Runs on the source, from the final dump to the end.  The order is `phaul.protocol.ownership`'s; here
is what each step does to the tree and to the journal.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from phaul.cgroups import LockedGroup
from phaul.errors import CgroupError, LockUnavailable, OutcomeUnknown, PhaulError, StateError
from phaul.incarnation import Incarnation, living
from phaul.protocol.ownership import SourceOwner, SourceState
from phaul.protocol.settlement import Tree
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.apart import WARM_S
from phaul.subjects.lock import TreeLock
from phaul.subjects.proc import Proc, lives, parse_stat
from phaul.subjects.process import Subject
from phaul.subjects.tree import tree_pids

__all__ = ["Ledger", "Ownership", "end_rest", "tree_left"]

_GONE_S: Final = 30.0
"""A killed task ends when the kernel has taken its memory down: 1 GB natively took 0.05 s."""
_DYING_S: Final = 0.1
"""What was killed shows so at once; after this, it was not."""
_POLL_S: Final = 0.001

_logger = logging.getLogger("phaul")


@dataclass(frozen=True)
class Ledger:
    """Where a migration is written down: its journal, its id, and the key that settles it."""

    journal: Journal[SourceRecord]
    id: str
    key: str


@dataclass(frozen=True)
class _Seen:
    """A tree that stands still, and what is planned for its second lock."""

    tree: tuple[Incarnation, ...]
    groups: tuple[LockedGroup, ...]


class Ownership:
    """The source's end of the cutover of one tree.

    `ledger` is None for a caller who keeps no journal, and `second_lock` False for one who wants no
    frozen cgroup: what then holds is what CRIU alone does.  `follows` says that memory is going to
    follow the copy, which the journal has to tell.
    """

    def __init__(
        self,
        subject: Subject,
        ledger: Ledger | None,
        *,
        second_lock: bool,
        follows: bool = False,
    ) -> None:
        self._follows = follows
        self._subject = subject
        self._ledger = ledger
        self._owner = SourceOwner()
        self._lock = TreeLock() if second_lock else None
        self._record: SourceRecord | None = None
        self._tree: tuple[Incarnation, ...] = ()
        self._groups: tuple[LockedGroup, ...] = ()
        self._seen: _Seen | None = None
        self._over = False
        self._readying = threading.Lock()

    @property
    def state(self) -> SourceState:
        """Where the source stands."""
        return self._owner.state

    async def warm_up(self) -> None:
        """Spare the dump a wait, before the tree is frozen for it; see `TreeLock.warm`.

        CRIU reads the tree's groups, and would wait for whoever waits to change one: 10 to 16 ms.
        """
        if self._lock is not None:
            await anyio.to_thread.run_sync(self._lock.warm)

    def freeze(self) -> None:
        """CRIU is asked for the final dump."""
        self._owner.freeze()

    async def lock(self) -> None:
        """Hold the tree, which CRIU holds, for good: after this Restore may be sent.

        Raises StateError if the journal cannot be written; nothing is locked then.
        """
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._take)
        self._owner.lock()

    async def get_ready(self, at_home: anyio.Event) -> None:
        """Make `lock` short, beside the dump, until this is cancelled.

        As soon as CRIU has stopped the whole tree, and it is `at_home` in its own cgroups, it can
        be looked at: it changes no more; and written down.  Where there is neither a journal nor a
        second lock, that need not be before the dump is done.
        """
        if self._lock is None and self._ledger is None:
            return
        warm = True
        while warm or self._seen is None:
            ready = partial(self._get_ready, look=at_home.is_set())
            warm = await anyio.to_thread.run_sync(ready, abandon_on_cancel=True)
            await anyio.sleep(WARM_S)

    def _get_ready(self, *, look: bool) -> bool:
        warm = self._lock is not None and self._lock.warm()
        # It may be abandoned, and go on beside `lock` or `back`: they wait for it here.
        with self._readying, suppress(PhaulError):  # `lock` looks again, and says so
            if look and self._seen is None and not self._over:
                pids = self._pids()
                # The same once more: what was born before its parent stood still is among them.
                if _stands_still(pids) and set(self._pids()) == set(pids):
                    seen = self._look(pids)
                    self._write_down(seen)
                    self._seen = seen
        return warm

    def _write_down(self, seen: _Seen) -> None:
        """Bring to the disk what the lock is going to do, and first what takes that back.

        Whoever finds it can undo it, done or not.  There is nothing to write where there is no
        journal, or the root is gone.
        """
        root = next((one for one in seen.tree if one.pid == self._subject.pid), None)
        if self._ledger is None or root is None:
            return
        record = SourceRecord(
            id=self._ledger.id,
            key=self._ledger.key,
            state=SourceState.LOCKED,
            root=root,
            tree=seen.tree,
            groups=seen.groups,
            follows=self._follows,
        )
        self._ledger.journal.prepare(msgspec.structs.replace(record, state=SourceState.BACK))
        self._record = self._ledger.journal.write(record, sync=True)
        self._note()  # what is noted next overwrites it, which takes 0.03 ms and not 0.3

    def _pids(self) -> list[int]:
        return tree_pids(self._subject.pid, Proc())

    def _look(self, pids: list[int]) -> _Seen:
        """See what there is to lock; all of it must stand still."""
        tree = living(pids)
        name = self._ledger.id if self._ledger is not None else str(self._subject.pid)
        groups: tuple[LockedGroup, ...] = ()
        if self._lock is not None:
            try:
                groups = self._lock.plan(name, pids)
            except LockUnavailable as error:
                _logger.warning("there is no second lock: %s", error)
        return _Seen(tree, groups)

    def _take(self) -> None:
        with self._readying:
            seen, self._over = self._seen, True
        if seen is None:
            if self._lock is not None:
                self._lock.warm()
            seen = self._look(self._pids())
            self._write_down(seen)
        self._tree, groups = seen.tree, seen.groups
        if self._lock is not None:
            self._lock.warm()
        if groups and self._lock is not None:
            try:
                self._lock.take(groups)
            except CgroupError as error:
                _logger.warning("there is no second lock: %s", error)
                groups = ()
                self._change(groups=groups)
                self._write(sync=True)
        self._groups = groups

    def decide(self) -> None:
        """Ready has come, and the tree may be killed; raises StateError, nothing is decided then.

        Where the second lock holds, LOCKED on the disk is enough: after a power cut the tree cannot
        have run on here, decided or not.
        """
        self._owner.decide()
        self._change(state=SourceState.DECIDED)
        if self._groups:
            self._note()
            return
        try:
            self._write(sync=True)
        except StateError:
            self._owner = SourceOwner(SourceState.LOCKED)
            raise

    async def back(self, *, whole: bool = False) -> tuple[PhaulError, ...]:
        """Let the tree run on here, as far as it is ours to; returns what failed on the way.

        Written down first; on a full disk by a record that was laid ready when the tree was locked.
        """
        if self.state is SourceState.BACK:
            return ()
        failures: list[PhaulError] = []
        self._owner.back(whole=whole)
        await anyio.to_thread.run_sync(self._stop_readying)
        if self._record is not None:
            self._change(state=SourceState.BACK)
            try:
                await anyio.to_thread.run_sync(partial(self._write, sync=True))
            except StateError as error:
                failures += [error, *self._fall_back()]
        if self._groups and self._lock is not None:
            try:
                await anyio.to_thread.run_sync(self._lock.give_back, self._groups)
            except CgroupError as error:
                failures.append(error)
            self._groups = ()
        return tuple(failures)

    def _stop_readying(self) -> None:
        with self._readying:
            self._over = True

    async def gone(self) -> bool:
        """See to it that the tree is gone, after CRIU was told to kill it; returns whether it is.

        For a tree that no second lock holds: false where CRIU let all of it go instead, so that it
        runs on here.  Raises OutcomeUnknown if it can be neither killed nor shown to be whole.
        """
        left = tree_left(self._tree)
        until = time.monotonic() + _DYING_S
        while left is not Tree.GONE and time.monotonic() < until:
            await anyio.sleep(_POLL_S)
            left = tree_left(self._tree)
        if left in (Tree.WHOLE, Tree.ROOT):
            return False
        if left is not Tree.GONE:
            await self._end()
        self._owner.gone()
        return True

    @property
    def locked(self) -> bool:
        """Whether the second lock holds the tree: it does not run, whoever lets go of it."""
        return bool(self._groups)

    async def kill(self) -> None:
        """Kill the tree, which was decided, before CRIU does, and look that it is gone.

        CRIU would take 22 ms for 200 tasks, natively, and in a post-copy do it only when it has
        given all memory.  What has got its SIGKILL is gone; that its memory is taken down is waited
        for by `tidy`.  Raises OutcomeUnknown if it cannot be killed.
        """
        with anyio.CancelScope(shield=True):
            if self._groups and self._lock is not None:
                with suppress(CgroupError):  # then each gets its own
                    self._lock.send_kill(self._groups)
            if tree_left(self._tree) is not Tree.GONE:
                for one in self._tree:
                    one.signal(signal.SIGKILL)
                if tree_left(self._tree) is not Tree.GONE:
                    await self._end()
        self._owner.gone()

    @property
    def untouched(self) -> bool:
        """Whether all of the tree is still alive."""
        return tree_left(self._tree) is Tree.WHOLE

    async def _end(self) -> None:
        try:
            await end_rest(self._tree, self._groups, self._lock)
        except PhaulError as error:
            raise OutcomeUnknown(
                f"what is left of the process cannot be killed: {error.what}",
                fate=self._subject.fate(),
            ) from error

    async def tidy(self) -> tuple[PhaulError, ...]:
        """Remove what the second lock has left behind; returns what failed."""
        groups, self._groups = self._groups, ()
        if groups and self._lock is not None:
            try:
                await anyio.to_thread.run_sync(self._lock.kill, groups)
            except CgroupError as error:
                return (error,)
        return ()

    async def there(self) -> None:
        """The destination says that it runs there; on the disk before it is let forget that."""
        self._owner.there()
        self._change(state=SourceState.THERE)
        try:
            await anyio.to_thread.run_sync(partial(self._write, sync=True))
        except StateError as error:
            _logger.warning("%s", error)

    def _change(self, **changes: object) -> None:
        if self._record is not None:
            self._record = msgspec.structs.replace(self._record, **changes)

    def _write(self, *, sync: bool) -> None:
        if self._record is not None and self._ledger is not None:
            self._record = self._ledger.journal.write(self._record, sync=sync)

    def _note(self) -> None:
        try:
            self._write(sync=False)
        except StateError as error:
            _logger.warning("%s", error)

    def _fall_back(self) -> list[PhaulError]:
        assert self._ledger is not None
        try:
            self._ledger.journal.fall_back()
        except StateError as error:
            return [error]
        return []


def _stands_still(pids: Iterable[int]) -> bool:
    """Whether a tracer has stopped each thread of the processes: none of them can fork.

    What a tracer holds is not reaped before it lets go: its PID stays its own.
    """
    proc, some = Proc(), False
    for pid in pids:
        stat = proc.process(pid)
        if stat is None or stat.state not in "tZ":
            return False
        some = True
        if stat.threads > 1:
            for thread in proc.numbers(pid, "task"):
                text = proc.text(pid, "task", str(thread), "stat")
                if not text or parse_stat(text).state not in "tZ":
                    return False
    return some


def tree_left(tree: tuple[Incarnation, ...]) -> Tree:
    """What is left of the processes; the first is the root."""
    alive = [lives(one) for one in tree]
    if not any(alive):
        return Tree.GONE
    if not alive[0]:
        return Tree.PART
    return Tree.WHOLE if all(alive) else Tree.ROOT


async def end_rest(
    tree: tuple[Incarnation, ...], groups: tuple[LockedGroup, ...], lock: TreeLock | None
) -> None:
    """Kill what is left of the tree, and wait until it is gone; raises CgroupError, OutcomeUnknown.

    What the second lock holds never runs again meanwhile.
    """
    if groups and lock is not None:
        await anyio.to_thread.run_sync(lock.kill, groups)
    for one in tree:
        if lives(one):
            one.signal(signal.SIGKILL)
    until = time.monotonic() + _GONE_S
    while tree_left(tree) is not Tree.GONE:
        if time.monotonic() > until:
            raise OutcomeUnknown(f"PID {tree[0].pid} does not end")
        await anyio.sleep(_POLL_S)
