"""What one migration has on this host, and whose it is: received, held, let go, or kept.

Runs on the destination, from Prepare to the end, in the agent of the migration; and in the agent of
a later connection, which takes over what a dead one left.  All that changes the owner goes through
here, in the order of `phaul.protocol.ownership`, with the journal written before what it allows.
"""

import logging
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync as in_thread

from phaul.config import Timeouts
from phaul.criu.engine import Engine
from phaul.destination.cage import Cage
from phaul.destination.copy import HeldCopy
from phaul.destination.durability import Durability
from phaul.destination.incoming import Incoming
from phaul.destination.leftovers import end_copy, leave_memory
from phaul.destination.session import DestinationSession
from phaul.errors import ImageError, PhaulError, StateError, UsageError
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m
from phaul.protocol.ownership import DestinationOwner, DestinationState
from phaul.protocol.settlement import copy_of
from phaul.storage.journal import DestinationRecord, Journal

__all__ = ["Custody"]

_SYNC_GRACE_S: Final = 1.0
"""So long a restored copy waits for its images to be on the disk; the process is down meanwhile."""
_GATHER_AFTER_S: Final = 0.3
_TALK_S: Final = 10.0
"""So long the one who has settled it may go on to talk."""

_logger = logging.getLogger("phaul")


class Custody:
    """The custody of one migration; `record` is what the journal says.

    `session` receives and restores; none where a dead agent's was taken over.  `tasks` outlives it.
    """

    def __init__(
        self,
        incoming: Incoming,
        record: DestinationRecord,
        engine: Engine,
        tasks: TaskGroup,
        session: DestinationSession | None = None,
        timeouts: Timeouts | None = None,
        cage: Cage | None = None,
    ) -> None:
        self._cage = cage
        self.incoming = incoming
        self.record = record
        self.settled = anyio.Event()
        """The process is known to be here, or known not to be."""
        self.told = anyio.Event()
        """The source has heard that over another connection, and needs nothing more."""
        if record.state is DestinationState.RUNNING:
            self.settled.set()
        self._owner = DestinationOwner(record.state)
        self._journal = Journal(incoming.path, DestinationRecord)
        self._engine = engine
        self._tasks = tasks
        self._session = session
        self._timeouts = timeouts or Timeouts()
        self._copy: HeldCopy | None = None
        self._turn = anyio.Lock()
        self._ended = False
        self._durability = Durability(tasks)

    @property
    def state(self) -> DestinationState:
        """Whose the process is, as seen from here."""
        return self._owner.state

    def begin(self) -> None:
        """Write down that something is here; raises StateError."""
        self._write(sync=False)

    async def took_over(self) -> None:
        """Write down that it is this process's now, with what is told of, as far as there is room.

        By that the source may end what it has, and who wrote it may have died before that.
        """
        if self.state is DestinationState.IMAGES and not self.record.durable:
            self._change(durable=await self._durability.bring(self.incoming.images))
        await in_thread(partial(self._note, sync=True))

    # -- receiving

    def written(self, folder: Path) -> None:
        """The round in `folder` is complete."""
        self.caged()
        self._durability.written(folder)

    def caged(self) -> None:
        """There may be a cage now: if this process dies, it is found by its journal alone."""
        if self._cage is not None:
            self._cage.keep_warm()  # a restore may be what comes next
            if self._cage.groups != self.record.cage:
                self._note(cage=self._cage.groups)

    def begun(self) -> None:
        """The next round is under way: beside it those before get to the disk."""
        self._durability.sync()

    async def restore(self) -> m.Ready:
        """Restore what was received, and hold it.

        From the moment that this returns only the source's word ends the copy.  That it may is on
        the disk before: written beside the restore, which takes longer.
        """
        async with self._turn:
            session = self._session
            if session is None or session.last_images_dir is None:
                raise UsageError("nothing was received", host=self._engine.host)
            await session.get_memory_ready()  # before the sync: it writes there
            self._owner.restore()
            folder = session.last_images_dir
            self._change(
                cage=self._cage.groups if self._cage is not None else (),
                images=f"images/{folder.name}",
                state=DestinationState.READY,
                follows=session.follows,
            )
            journalled = anyio.Event()
            failed: list[StateError] = []

            async def journal() -> None:
                try:
                    await self._durability.begin(folder)
                    await in_thread(partial(self._write, sync=True))
                except StateError as error:
                    failed.append(error)
                finally:
                    journalled.set()

            # Both beside the restore, which mostly takes longer, and is asked for before them.
            self._tasks.start_soon(journal)
            self._durability.sync(folder, after=journalled)
            try:
                pid = await session.restore()
                await journalled.wait()
                if failed:
                    await session.discard()
                    raise failed[0]
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await journalled.wait()
                    self._owner.discard()
                    self._forget()
                raise
            durable = await self._durability.reached(_SYNC_GRACE_S)
            self._owner.ready()
            # 0.05 ms: who ends what a dead agent has left begins at its root.
            self._note(pid=pid, root=Incarnation.of(pid), durable=durable)
            self._tasks.start_soon(self._gather, session)
            return m.Ready(pid=pid, durable=durable, lazy=session.memory is not None)

    async def _gather(self, session: DestinationSession) -> None:
        """Close the cage, if the source's word does not come at once.

        Until then the copy is found from its root.  To move 200 processes takes the kernel 80 ms,
        in which it holds up CRIU's letting them go.
        """
        await self._lay_release()
        await anyio.sleep(_GATHER_AFTER_S)
        if self._held():
            await session.gather()
        if self._held() and self._cage is not None and self._cage.groups:
            self._note(cage=self._cage.groups)
            await self._lay_release()

    def _held(self) -> bool:
        return self.state is DestinationState.READY

    # -- settling

    def standing(self) -> m.Standing:
        """What is here, for who settles it."""
        copy = copy_of(self.state, unsure=self.record.unsure)
        return m.Standing(copy=copy, pid=self.record.pid, path=str(self.incoming.path))

    async def commit(self) -> m.Running:
        """Let the copy run; asked again it says again that it does.

        Raises CriuError if CRIU does not say so: the images are kept then.
        """
        async with self._turn:
            if self.state is DestinationState.RUNNING:
                return m.Running()
            await self._require_memory()
            self._owner.commit()
            self._change(state=DestinationState.RELEASING)
            self._note_release()
            with anyio.CancelScope(shield=True):
                try:
                    await self._let_go()
                except BaseException as error:
                    self._lapse(unsure=True)
                    try:
                        await end_copy(self.record, self._engine.host)
                    except StateError as also:
                        error.add_note(str(also))
                    raise
                self._owner.runs()
                self._note(state=DestinationState.RUNNING)
            self.settled.set()
            self._tasks.start_soon(self._sync_running)
            return m.Running()

    async def _require_memory(self) -> None:
        """End a copy whose memory cannot come any more, and raise why: its images are good."""
        try:
            if self._session is not None and self._session.holds:
                await self._session.require_memory()
        except PhaulError:
            await self._end_held()
            raise

    async def _lay_release(self) -> None:
        """Lay RELEASING ready, for a disk that is full when it has to be written."""
        laid = msgspec.structs.replace(self.record, state=DestinationState.RELEASING)
        try:
            await in_thread(self._journal.lay, laid)
        except StateError as error:
            _logger.warning("%s", error)

    def _note_release(self) -> None:
        """Who finds READY of a dead agent ends the copy: so it must be this before it runs."""
        try:
            self._write(sync=False)
        except StateError:
            laid = self._journal.laid
            if laid is None:
                self._owner = DestinationOwner(DestinationState.READY)
                self._change(state=DestinationState.READY)
                raise
            self._journal.put()
            self.record = laid

    async def _sync_running(self) -> None:
        """Bring that to the disk beside the answer: after a power cut nobody needs what is kept."""
        async with self._turn:
            if self.state is DestinationState.RUNNING and not self._ended:
                with suppress(StateError):
                    await in_thread(partial(self._write, sync=True))

    async def _let_go(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            self._tasks.start_soon(await copy.release(self._timeouts.finish))
        elif self._session is not None:
            await self._session.release()
        else:
            raise UsageError("nothing is restored and held", host=self._engine.host)

    async def discard(self) -> m.Done:
        """The source has the process: end a copy that is held, keep nothing."""
        async with self._turn:
            if self.state is not DestinationState.DISCARDED:
                DestinationOwner(self.state).discard()  # raises if it may not be now
                with anyio.CancelScope(shield=True):
                    await self._end_copy()
                    self._owner.discard()
                    self._forget()
            self.settled.set()
            return m.Done()

    async def recover(self) -> m.Ready:
        """Restore again from the images that were kept, and hold it."""
        async with self._turn:
            if self.record.images is None:
                raise ImageError("no images were kept", host=self._engine.host)
            self._owner.restore()
            cage = Cage(self.incoming.path.name)
            try:
                worker = self._engine.worker(())
                with anyio.CancelScope(shield=True):
                    await in_thread(cage.prepare, worker.process.pid)
                # If this process dies now, what CRIU leaves behind is found by its cage alone.
                self._note(state=DestinationState.AGAIN, cage=cage.groups, pid=None, root=None)
                folder = self.incoming.path / self.record.images
                options, timeout = self.record.options, self._timeouts.restore
                copy = await HeldCopy.again(worker, folder, options, timeout, cage)
            except BaseException:
                self._lapse()
                raise
            await copy.gather()
            self._copy = copy
            self._owner.ready()
            root = Incarnation.of(copy.pid)
            self._note(state=DestinationState.READY, pid=copy.pid, root=root, cage=cage.groups)
            return m.Ready(pid=copy.pid, durable=self.record.durable)

    # -- the end

    async def hold(self, lease_s: float) -> None:
        """Wait for the source's word for `lease_s`; then end the copy, and keep its images."""
        with anyio.move_on_after(lease_s):
            await self.settled.wait()
        if self.settled.is_set():
            with anyio.move_on_after(_TALK_S):
                await self.told.wait()
        async with self._turn:
            if self.state is DestinationState.READY:
                await self._end_held()
                _logger.warning("no word came in %g s: the copy ended, its images stay", lease_s)

    async def _end_held(self) -> None:
        """End a copy that is held, and keep its images."""
        with anyio.CancelScope(shield=True):
            # Until it has ended the journal says that it has to be.
            try:
                await self._end_copy()
            except (PhaulError, TimeoutError) as error:
                _logger.warning("while the copy was ended: %s", error)
                await end_copy(self.record, self._engine.host)
            self._lapse()

    def _lapse(self, *, unsure: bool = False) -> None:
        """The copy has ended: what it can be restored from is kept, if it can be."""
        self._owner.lapse()
        if self.record.follows:
            self._owner.discard()
            self._forget()
            self.settled.set()
            return
        self._note(state=DestinationState.IMAGES, unsure=unsure)

    async def end(self, *, told: bool, keep_images: bool) -> None:
        """Remove what nobody needs; `told` says that the source knows how it ended.

        What the process may have to be restored from stays, with the journal.
        """
        with anyio.CancelScope(shield=True):
            async with self._turn:
                self._ended = True
            try:
                if gives_up := self.state.gives_up:
                    self._owner.give_up()
                runs = self.state is DestinationState.RUNNING
                drains = runs and await leave_memory(self._session, self.incoming, told=told)
                keep = self.state.owed or keep_images or drains
                if self._copy is not None:
                    await self._end_copy()
                if self._session is not None:
                    await self._session.close(keep_images=keep, keep_logs=False)
                if gives_up:  # now that there is no cage, which nothing else tells of
                    self._forget()
            finally:
                if self.state.owed:
                    await self._durability.ended()
                if runs and keep_images:
                    self.incoming.keep("the images were asked to be kept")
                elif not self.state.owed:
                    if runs and not told:
                        self._write(sync=True)  # else the images would be all that tells of it
                    if not drains:
                        shutil.rmtree(self.incoming.images, ignore_errors=True)
                if self.state.owed or drains or (runs and not told):
                    self.incoming.stay()

    async def _end_copy(self) -> None:
        if self._copy is not None:
            copy, self._copy = self._copy, None
            await copy.discard()
        elif self._session is not None and self._session.holds:
            await self._session.discard()

    def _change(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)

    def _write(self, *, sync: bool) -> None:
        self.record = self._journal.write(self.record, sync=sync)

    def _note(self, *, sync: bool = False, **changes: object) -> None:
        """Write what is no condition of the next step; a full disk keeps nobody from it."""
        self._change(**changes)
        try:
            self._write(sync=sync)
        except StateError as error:
            _logger.warning("%s", error)

    def _forget(self) -> None:
        try:
            self._journal.remove()
        except StateError as error:
            _logger.warning("%s", error)
