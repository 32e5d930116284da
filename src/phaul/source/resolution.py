"""A migration that was torn apart is settled: both hosts are looked at, and what is to be done is.

Runs on the source: in `phaul resolve`, and in a migration whose last word found no answer.  What is
to be done is `protocol.settlement`'s; here it is looked, and done, in its order.  It may be broken
off anywhere, and begun again.
"""

import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from phaul._version import __version__
from phaul.config import Timeouts
from phaul.criu.facts import host_name
from phaul.errors import (
    CgroupError,
    LockUnavailable,
    OutcomeUnknown,
    PeerError,
    PhaulError,
    ProtocolError,
    StateError,
)
from phaul.incarnation import Incarnation, boot_id
from phaul.protocol import messages as m
from phaul.protocol.handshake import OURS
from phaul.protocol.ownership import SourceState
from phaul.protocol.settlement import Copy, Settlement, Source, Step, Tree, Verdict, settle
from phaul.report.units import plural
from phaul.source.ownership import end_rest, tree_left
from phaul.source.unlocking import unlock_here
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.lock import TreeLock
from phaul.subjects.proc import Proc
from phaul.transport.base import SourceEnd
from phaul.transport.caller import Caller

__all__ = ["Found", "Resolution"]

_logger = logging.getLogger("phaul")

_HELLO_S: Final = 120.0
_ASK_S: Final = 60.0
_ENDED: Final = "it was ended there: "
_LET_GO_S: Final = 15.0
"""CRIU undoes a dump of 200 tasks in some 0.1 s natively."""
_HELD: Final = (SourceState.LOCKED, SourceState.DECIDED)
"""Only then may a CRIU hold the tree that is this migration's, and not a later one's."""


@dataclass(frozen=True)
class Found:
    """What was found on both hosts, and what is to be done; `unreached` is why."""

    source: Source
    copy: Copy
    settlement: Settlement
    standing: m.Standing | None = None
    unreached: PhaulError | None = None

    @property
    def verdict(self) -> Verdict:
        """Where the process is when the steps are done."""
        return self.settlement.verdict


@dataclass(eq=False)
class Resolution:
    """The settling of one migration.

    `directory` is the migration's own, `root` the process that was to be moved, `connect` makes the
    connection, `peer` names the other host in messages.  `destination_pid` is the copy's root.
    `supplied` says that this process still has the memory that follows, if any does.
    """

    id: str
    directory: Path
    root: Incarnation
    connect: Callable[[], SourceEnd] | None
    peer: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    destination_pid: int | None = None
    supplied: bool = False

    def __post_init__(self) -> None:
        self._journal = Journal(self.directory, SourceRecord)

    async def look(self) -> Found:
        """Look at both hosts; nothing is changed.  Raises StateError for a damaged journal."""
        return await self._run(act=False)

    async def settle(self) -> Found:
        """Look at both hosts, and do what is to be done; returns what was found.

        Raises StateError, what a step over there raises, and OutcomeUnknown for what cannot be
        killed; it may be tried again.
        """
        return await self._run(act=True)

    async def _run(self, *, act: bool) -> Found:
        record = self._journal.read()
        if act and record is not None and record.state in _HELD:
            await _let_go(record)
        source = self._look_here(record)
        if self.connect is None or record is None:
            # Without a journal it never came so far that there could be a copy.
            copy = Copy.NOTHING if record is None else Copy.UNREACHED
            return await self._here(record, source, copy, None, act=act)
        try:
            async with self.connect() as end:
                caller = Caller(end.control, self.peer)
                standing = await self._ask(caller, record.key, act=act)
                return await self._there(caller, record, source, standing, act=act)
        except _Unreached as error:
            unreached = error.why
        except PeerError as error:
            if isinstance(error, ProtocolError):
                raise
            unreached = error
        record = self._journal.read()
        source = self._look_here(record)
        return await self._here(record, source, Copy.UNREACHED, unreached, act=act)

    def _look_here(self, record: SourceRecord | None) -> Source:
        source = look_here(record, self.root)
        return replace(source, follows=source.follows and not self.supplied)

    async def _ask(self, caller: Caller, key: str, *, act: bool) -> m.Standing:
        """What is over there; whatever keeps the other side from saying so, it was not reached.

        What is the source's runs on here all the same.
        """
        hello = m.Hello(
            versions=OURS,
            phaul=__version__,
            host=host_name(),
            criu=m.CriuVersion(major=0, minor=0),
            migration=self.id,
            settle=True,
        )
        try:
            await caller.hello(hello, _HELLO_S)
            standing = await caller.call(m.Ask(key=key, act=act), _ASK_S)
            if not isinstance(standing, m.Standing):
                raise ProtocolError("the other side does not say what it has", host=self.peer)
        except PhaulError as error:
            raise _Unreached(error) from error
        return standing

    async def _there(
        self,
        caller: Caller,
        record: SourceRecord,
        source: Source,
        standing: m.Standing,
        *,
        act: bool,
    ) -> Found:
        self.destination_pid = standing.pid
        settlement = settle(source, standing.copy)
        if settlement.verdict is Verdict.THERE:
            settlement = _without_memory(settlement, source, standing, record.lost)
        found = Found(source, standing.copy, settlement, standing)
        if act:
            for step in found.settlement.steps:
                record = await self._do(step, record, caller)
            if found.verdict is Verdict.THERE and standing.copy is Copy.RUNNING:
                # It says once more that it runs, and hears that this is known here.
                record = await self._do(Step.COMMIT, record, caller)
            await self._conclude(record, found)
        with suppress(PhaulError):
            await caller.call(m.Bye(), _ASK_S)
        return found

    async def _here(
        self,
        record: SourceRecord | None,
        source: Source,
        copy: Copy,
        error: PhaulError | None,
        *,
        act: bool,
    ) -> Found:
        settlement = settle(source, copy)
        if record is not None and record.lost:
            settlement = _without_memory(settlement, source, None, record.lost)
        if record is None:  # nothing was done that has to be undone
            settlement = replace(settlement, steps=())
        found = Found(source, copy, settlement, None, error)
        if act and record is not None:
            for step in found.settlement.steps:
                record = await self._do(step, record, None)
            if copy is not Copy.UNREACHED:
                await self._conclude(record, found)
            elif found.verdict is Verdict.THERE:
                await self._remove_lock(record)
        return found

    async def _conclude(self, record: SourceRecord, found: Found) -> None:
        match found.verdict:
            case Verdict.THERE:
                await self._remove_lock(record)
                # What still gives its memory says itself when that is not needed any more.
                settled = not (record.follows and self.supplied)
                record = msgspec.structs.replace(record, state=SourceState.THERE, settled=settled)
            case Verdict.UNKNOWN:
                return
            case Verdict.LOST:
                await self._remove_lock(record)
                why = found.settlement.why[:4000] if record.follows else ""
                record = msgspec.structs.replace(record, lost=record.lost or why, settled=True)
            case _:
                record = msgspec.structs.replace(record, settled=True)
        self._journal.write(record, sync=True)

    async def _do(self, step: Step, record: SourceRecord, caller: Caller | None) -> SourceRecord:
        match step:
            case Step.RESUME:
                return await self._resume(record)
            case Step.KILL_REST:
                record = self._journal.write(record, sync=True)  # what is acted upon, stands
                await end_rest(record.tree, record.groups, _tree_lock(record))
                return record
            case Step.RESTORE:
                assert caller is not None
                ready = await caller.call(m.Recover(), self.timeouts.restore)
                if isinstance(ready, m.Ready):
                    self.destination_pid = ready.pid
                return record
            case Step.COMMIT:
                assert caller is not None
                if tree_left(record.tree) is not Tree.GONE:
                    raise OutcomeUnknown("the process is not gone from here, nothing was released")
                if record.state is not SourceState.THERE:
                    record = self._journal.write(
                        msgspec.structs.replace(record, state=SourceState.GONE), sync=True
                    )
                await caller.call(m.Commit(), self.timeouts.finish)
                return record
            case Step.DISCARD:
                assert caller is not None
                await caller.call(m.Discard(), _ASK_S)
                return record

    async def _remove_lock(self, record: SourceRecord) -> None:
        """Remove the groups of the second lock, in which nobody is any more."""
        lock = _tree_lock(record)
        if lock is not None and record.root.boot == boot_id():
            try:
                await anyio.to_thread.run_sync(lock.kill, record.groups)
            except CgroupError as error:
                _logger.warning("%s", error)

    async def _resume(self, record: SourceRecord) -> SourceRecord:
        record = await anyio.to_thread.run_sync(
            partial(
                self._journal.write,
                msgspec.structs.replace(record, state=SourceState.BACK),
                sync=True,
            )
        )
        lock = _tree_lock(record)
        if lock is not None and record.root.boot == boot_id():
            try:
                await anyio.to_thread.run_sync(lock.give_back, record.groups)
            except LockUnavailable as error:
                raise StateError(f"the second lock cannot be given back: {error}") from error
        for left in await unlock_here(self.directory / "images"):
            _logger.warning("%s", left)
        return record


def look_here(record: SourceRecord | None, root: Incarnation) -> Source:
    """What is to be seen on this host."""
    if record is None:
        return Source(None, Tree.WHOLE if root.alive() else Tree.GONE)
    # Until it was frozen only its root is known.
    return Source(
        record.state,
        tree_left(record.tree or (record.root,)),
        locked=bool(record.groups),
        same_boot=record.root.boot == boot_id(),
        follows=record.follows,
    )


def _without_memory(
    found: Settlement, source: Source, standing: m.Standing | None, lost: str
) -> Settlement:
    """The same, unless it ran there and its memory did not come, or cannot come any more."""
    if lost := lost or (standing.lost if standing is not None else ""):
        lost = lost.removeprefix(_ENDED)
        kept = standing is not None and bool(standing.lost or standing.lacking)
        steps = (*found.steps, Step.DISCARD) if kept else found.steps
        return Settlement(Verdict.LOST, steps, f"{_ENDED}{lost}")
    if source.follows and standing is not None and standing.lacking:
        lacking = plural(standing.lacking, "page")
        why = (
            f"it was let go there, but {lacking} of its memory were still here, and are gone with "
            "what had them: it cannot go on"
        )
        return Settlement(Verdict.LOST, (*found.steps, Step.DISCARD), why)
    return found


class _Unreached(Exception):
    """The other side was not heard of what it has."""

    def __init__(self, why: PhaulError) -> None:
        super().__init__(why.what)
        self.why = why


def _tree_lock(record: SourceRecord) -> TreeLock | None:
    return TreeLock() if record.groups else None


async def _let_go(record: SourceRecord) -> None:
    """Wait until CRIU, whose phaul is dead, has let go of the tree; one that does not is killed.

    The second lock holds the tree meanwhile.
    """
    for one in record.tree:
        with anyio.move_on_after(_LET_GO_S):
            while _tracer(one) is not None:
                await anyio.sleep(0.02)
        tracer = _tracer(one)
        if tracer is not None:
            tracer.signal(signal.SIGKILL)
            with anyio.move_on_after(_LET_GO_S):
                while _tracer(one) is not None:
                    await anyio.sleep(0.02)


def _tracer(one: Incarnation) -> Incarnation | None:
    """The CRIU that traces a process, None if none does."""
    status = Proc().status(one.pid) if one.alive() else None
    number = (status or {}).get("TracerPid", "0")
    tracer = int(number) if number.isdecimal() else 0
    if not tracer:
        return None
    found = Incarnation.of(tracer)
    stat = Proc().process(tracer)
    return found if stat is not None and stat.name.startswith("criu") else None
