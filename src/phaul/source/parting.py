"""The end of a migration as the source sees it: the agent's goodbye, or a new connection's.

Runs on the source, after the commit, and after whatever failed before.  What cannot be said over
the connection that there was is said over another one, for as long as a link may need to come back.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import anyio
import msgspec

from phaul.criu.facts import host_name
from phaul.errors import OutcomeUnknown, PeerError, PhaulError, StateError, SubjectError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.protocol.settlement import Verdict
from phaul.source.counterpart import Counterpart
from phaul.source.ownership import Ledger
from phaul.source.resolution import Found, Resolution
from phaul.storage.journal import SourceRecord
from phaul.subjects.process import Subject
from phaul.transport.base import SourceEnd

__all__ = ["Parting"]

_LEAVE_S: Final = 20.0
_AGAIN_S: Final = 1.0


class _Order(Protocol):
    """What is used of the migration's order."""

    @property
    def id(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def connect(self) -> Callable[[], SourceEnd]: ...
    @property
    def directory(self) -> Path: ...
    @property
    def patience_s(self) -> float: ...
    @property
    def lease_s(self) -> int: ...


class Parting:
    """Parts from the other host, whose name is `peer`; what it settles is in `ledger`."""

    def __init__(self, order: _Order, subject: Subject, ledger: Ledger) -> None:
        self._order = order
        self._subject = subject
        self._ledger = ledger
        self.peer = order.target
        self._lost = False

    def begin(self) -> None:
        """From here on there may be something over there, so the key is needed to settle it."""
        root = Incarnation.of(self._subject.pid)
        if root is None:
            raise SubjectError(f"process {self._subject.pid} has just ended", host=host_name())
        record = SourceRecord(
            id=self._ledger.id, key=self._ledger.key, state=SourceState.RUNNING, root=root
        )
        self._ledger.journal.write(record, sync=False)

    async def release(self) -> int | None:
        """Have the copy released over a new connection; returns its PID there.

        Raises what the last attempt did, or OutcomeUnknown.
        """
        resolution, found = await self.settle(supplied=True)
        if found.verdict is not Verdict.THERE:
            raise OutcomeUnknown(found.settlement.why)
        return resolution.destination_pid

    async def settle(self, *, supplied: bool = False) -> tuple[Resolution, Found]:
        """Settle it over a new connection, for as long as the link may need to come back.

        `supplied` says that memory that follows, if any does, is still here.
        Raises what the last attempt did, or OutcomeUnknown.
        """
        root = Incarnation.of(self._subject.pid)
        resolution = Resolution(
            id=self._order.id,
            directory=self._order.directory,
            root=root or Incarnation(pid=self._subject.pid, start=self._subject.start, boot=""),
            connect=self._order.connect,
            peer=self.peer,
            supplied=supplied,
        )
        patience = self._order.patience_s
        if supplied and self._follows():  # who gives up now loses the process
            patience = max(patience, float(self._order.lease_s))
        until = time.monotonic() + patience
        while True:
            failed: PhaulError
            try:
                found = await resolution.settle()
                if found.unreached is None and found.verdict is not Verdict.UNKNOWN:
                    return resolution, found
                failed = found.unreached or OutcomeUnknown(found.settlement.why)
            except PhaulError as error:
                failed = error
            if time.monotonic() > until:
                raise failed
            await anyio.sleep(_AGAIN_S)

    def _follows(self) -> bool:
        with suppress(StateError):
            record = self._ledger.journal.read()
            return record is not None and record.follows
        return False

    async def after_commit(self, counterpart: Counterpart) -> tuple[str, ...]:
        """Say goodbye after the commit; what fails is only a warning."""
        with anyio.CancelScope(shield=True):
            try:
                await counterpart.take_leave(_LEAVE_S)
                self._mark_settled()
            except PeerError as error:
                # Its agent may be dead: another one then removes what that one left.
                try:
                    await self.settle()
                except PhaulError:
                    return (f"{self.peer} did not say that it has cleaned up: {error.what}",)
            except PhaulError as error:
                return (f"{self.peer} did not say that it has cleaned up: {error.what}",)
        return ()

    async def after(self, error: BaseException, counterpart: Counterpart) -> None:
        """Have the other side clean up after a failure, and say so in the error's fate."""
        peer = self.peer
        left = f"nothing left on {peer}"
        unknown = isinstance(error, OutcomeUnknown)
        with anyio.CancelScope(shield=True):
            try:
                await counterpart.take_leave(_LEAVE_S)
                if not unknown:
                    self._mark_settled()
            except PeerError:
                left = f"{peer} cleans up by itself when it notices"
                if self._lost or (counterpart.asked_to_restore and not unknown):
                    left = await self._clear()
            except PhaulError as also:
                left = f"{peer} could not clean up: {also.what}"
        if isinstance(error, PhaulError) and not unknown:
            error.fate = (
                f"{self._subject.fate()}; {left}" if counterpart.met else self._subject.fate()
            )

    async def _clear(self) -> str:
        """Have a copy that may be held over there discarded; returns what is left, in words."""
        try:
            await self.settle()
        except PhaulError as error:
            return (
                f"{self.peer} may hold a copy, which never runs: `phaul resolve {self._order.id} "
                f"--yes` has it removed ({error.what})"
            )
        return f"nothing left on {self.peer}"

    def lost(self, error: PhaulError) -> None:
        """The process was lost with its memory: for whoever asks later."""
        self._lost = True
        with suppress(StateError):
            record = self._ledger.journal.read()
            if record is not None:
                lost = msgspec.structs.replace(record, lost=error.what[:4000], settled=True)
                self._ledger.journal.write(lost, sync=True)

    def _mark_settled(self) -> None:
        with suppress(StateError):  # it will only be looked at once more
            record = self._ledger.journal.read()
            if record is not None:
                self._ledger.journal.write(
                    msgspec.structs.replace(record, settled=True), sync=False
                )
