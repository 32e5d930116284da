"""A whole migration as the destination sees it.

Runs on the destination.

    enter --> start_iteration --> stop_iteration --+--> restore --> release --> close
                    ^                              |       |           |
                    +------------------------------+       +--discard--+

A failed iteration drops the chain: its images are of no use to the next attempt, which starts with
a fresh socket.  `close` leaves nothing behind, unless it is asked to, or a copy runs from there.
"""

import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync as in_thread

from phaul.config import Config
from phaul.criu.engine import Engine, Facts
from phaul.criu.rpc import CriuOptions
from phaul.criu.workers import Workers
from phaul.destination.cage import Cage
from phaul.destination.copy import HeldCopy
from phaul.destination.memory import LazyMemory, as_draining, drained
from phaul.destination.reception import Iteration, PageServer
from phaul.errors import CriuNotFound, ImageError, PageStoreError, PhaulError, UsageError
from phaul.pages.channel import MemoryChannel, OpenChannel
from phaul.protocol import messages as m
from phaul.storage.workdir import WorkDir

__all__ = ["DestinationSession"]

HOST: Final = "destination"

_logger = logging.getLogger("phaul")


class DestinationSession:
    """One migration on the destination: an async context manager.

    To enter it raises PreflightError if CRIU, the memory socket or the work directory cannot be
    used; to leave it is `close`.  `facts` are the engine's where the caller has asked already,
    `host` is this host's name in messages.  `tasks` watches the rounds come in; by default the
    session has a group of its own, and then must be entered and left as task groups must.
    `open_channel` makes the memory channel of a descriptor and this host's name.  The restoring
    CRIU is put in `cage`.  With `memory` it restores lazily, where that is shorter.  `expected` is
    how much memory is going to come, in bytes, 0 where that is unknown.
    """

    def __init__(
        self,
        config: Config,
        *,
        facts: Facts | None = None,
        host: str = HOST,
        tasks: TaskGroup | None = None,
        open_channel: OpenChannel = MemoryChannel,
        cage: Cage | None = None,
        memory: LazyMemory | None = None,
        expected: int = 0,
    ) -> None:
        self._cage = cage
        self._expected = expected
        self.memory = memory
        """Once the restore is held: what brings its memory, None if it was restored in full."""
        self._lazily = False
        self.follows = False
        """Whether what the final dump leaves out is still on the source."""
        self._open_channel = open_channel
        self._stack = AsyncExitStack()
        self._lent = tasks
        self._config = config
        self._host = host
        self._given = facts
        self._engine = Engine(config.criu_command, host)
        self._iteration: Iteration | None = None
        self._copy: HeldCopy | None = None
        self._failed = self._doubtful = False
        self._closed = False

    async def __aenter__(self) -> Self:
        channel = self._open_channel(self._config.memory_fd, self._host)
        workers = Workers(self._engine)
        try:
            self.facts = self._given or await workers.examine()
            workers.get_ready()  # the one that restores
            self._work = WorkDir.open(self._config.work_dir, self._host)
        except BaseException:
            await workers.close()
            channel.close()
            raise
        self._channel = channel
        self._workers = workers
        if self._lent is None:
            self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
            self._stack.callback(self._tasks.cancel_scope.cancel)
        else:
            self._tasks = self._lent
        self._pages = PageServer(
            self._expected,
            self._work.path,
            self._tasks,
            wide=self.facts.version.wide_page_server,
            host=self._host,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        finally:
            await self._stack.__aexit__(kind, error, trace)

    @property
    def holds(self) -> bool:
        """Whether a tree is restored and held."""
        return self._copy is not None

    @property
    def last_images_dir(self) -> Path | None:
        """The images directory of the newest round, None before the first."""
        return self._work.last

    async def start_iteration(self) -> None:
        """Receive the memory of one more round.

        Raises MemoryChannelError after a failure, until there is a new chain; WorkDirError.
        """
        if self._iteration is not None:
            raise UsageError("an iteration is under way already", host=self._host)
        if self._copy is not None:
            raise UsageError("the restore has begun: there are no more iterations", host=self._host)
        self._channel.check()
        images = self._work.next()
        try:
            await self._confine_worker()
            reception = await self._pages.start(images, self._channel.criu_fd)
        except BaseException:
            await self._fail()
            raise
        self._iteration = Iteration(reception)
        self._tasks.start_soon(self._watch, self._iteration)

    async def _confine_worker(self) -> None:
        """Have the one that restores stand in its cage, while the process still runs.

        A CRIU that dumps on the same kernel would wait for that change of groups, 10 ms.
        """
        with suppress(CriuNotFound):  # then who needs the worker says so
            self._workers.get_ready()
        if self._cage is not None and (waiting := self._workers.waiting):
            await in_thread(self._cage.prepare, waiting.process.pid)

    async def _watch(self, iteration: Iteration) -> None:
        # While the source sends, nobody else would notice that the reception has failed: this
        # process has the socket open, so the source would wait for a reader for ever.
        try:
            await iteration.reception.wait()
            self._pages.received(iteration.reception)
            if self.memory is not None:
                self.memory.written(iteration.reception.images_dir)
        except PhaulError as error:
            iteration.error = error
            self._channel.break_off()
        finally:
            iteration.reception.close()
            iteration.ended.set()

    async def stop_iteration(self) -> None:
        """Wait until the round is written; raises PageStoreError, ImageError if it failed."""
        iteration = self._iteration
        if iteration is None:
            raise UsageError("no iteration is under way", host=self._host)
        try:
            with anyio.move_on_after(self._config.timeouts.page_server):
                await iteration.ended.wait()
            if not iteration.ended.is_set():
                raise iteration.reception.late(self._config.timeouts.page_server)
            if iteration.error is not None:
                raise iteration.error
        except BaseException:
            await self._end_iteration()
            await self._fail()
            raise
        self._iteration = None

    async def _end_iteration(self) -> None:
        """End the reception, whatever it does; it is awaited."""
        if self._iteration is not None:
            with anyio.CancelScope(shield=True):
                self._channel.break_off()
                self._iteration.reception.kill()
                await self._iteration.ended.wait()
            self._iteration = None

    async def follow(self) -> None:
        """Make ready for a dump that leaves memory out, which follows; raises PageStoreError."""
        if self._iteration is not None or self._copy is not None:
            raise UsageError("a round or a restore is under way", host=self._host)
        if self.memory is None:
            raise PageStoreError("memory cannot be restored on demand here", host=self._host)
        self._channel.check()
        self._work.next().link()
        self.follows = True
        await self._confine_worker()
        await self.memory.follow(self._channel.criu_fd)

    async def new_chain(self, memory_fd: int) -> None:
        """Start over with a fresh socket after a failed or cancelled attempt."""
        if self._iteration is not None or self._copy is not None:
            raise UsageError("an attempt is still under way", host=self._host)
        channel = self._open_channel(memory_fd, self._host)
        self._channel.close()
        self._channel = channel
        self._pages.forget()
        self._work.drop_chain()

    def add_images(self, files: Iterable[Path]) -> None:
        """Copy the final dump's image files in beside the memory.

        Raises ImageError if one would replace a file that was received.
        """
        target = self._require_images()
        there = set(os.listdir(target))  # noqa: PTH208 -- once: the process is down meanwhile
        for file in files:
            if file.suffix != ".img":
                raise ImageError(f"{file} is no image file", host=self._host)
            if file.name in there:
                raise ImageError(f"{target / file.name} exists already", host=self._host)
            try:
                shutil.copyfile(file, target / ".partial")
                (target / ".partial").rename(target / file.name)
                there.add(file.name)
            except OSError as err:
                raise ImageError(
                    f"{file} cannot be copied to {target}: {err.strerror}", host=self._host
                ) from err

    async def get_memory_ready(self) -> None:
        """Have all stand that a lazy restore needs; `restore` is one in full if that cannot be.

        It writes to the newest images, which are complete.
        """
        if self.memory is not None:
            self._lazily = await self.memory.ready(self._require_images())
            if not self._lazily:
                self.memory = None

    async def restore(self, options: CriuOptions | None = None) -> int:
        """Restore from the newest images; returns the PID of the root, which stands still.

        All is restored, no task runs yet, and its connections are locked.  Then `release` or
        `discard` it.  Raises ImageError, CriuError.
        """
        if self._iteration is not None:
            raise UsageError("an iteration is still under way", host=self._host)
        if self._copy is not None:
            raise UsageError("the restore was begun already", host=self._host)
        images = self._require_images()
        options = options or self._config.options
        inherited = [fd for _, fd in options.inherit_fd]
        try:
            self._copy = await HeldCopy.restore(
                self._engine.worker(inherited) if inherited else self._workers.take(),
                images,
                options,
                timeout=self._config.timeouts.restore,
                log_level=self._config.log_level,
                host=self._host,
                cage=self._cage,
                lazily=self._lazily,
            )
            await self._guard(self._copy)
        except BaseException:
            self._failed = True
            with anyio.CancelScope(shield=True):
                await self._workers.close()
            raise
        return self._copy.pid

    async def _guard(self, copy: HeldCopy) -> None:
        if self.memory is None or not self._lazily:
            return
        try:
            await self.memory.guard(copy.pid)
        except BaseException:
            self._copy = None
            await copy.discard()
            raise

    async def gather(self) -> None:
        """Cage what CRIU moved out of its cage; beside what comes next, see HeldCopy.gather."""
        if self._copy is not None:
            await self._copy.gather()

    async def require_memory(self) -> None:
        """Raise if the memory of a copy that is held cannot come any more: then discard it."""
        if self.memory is not None:
            await self.memory.require()

    async def release(self) -> None:
        """Let the restored tree run: from now on it is this host's."""
        copy, self._copy = self._require_copy(), None
        self._cage = None  # the copy leaves it
        self._doubtful = True  # until CRIU says that it runs
        try:
            reap = await copy.release(self._config.timeouts.finish)
        except BaseException:
            await self._end_memory()
            raise
        self._doubtful = False
        # Beside what the caller does next, which is to tell that it runs here.
        self._tasks.start_soon(reap)

    async def drain(self, wait: float) -> m.Draining:
        """What of its memory a released tree still lacks, after so many seconds at most."""
        if self.memory is None:
            return drained()
        try:
            found = await self.memory.look(wait)
        except PageStoreError as error:  # its warden ends what the keeper cannot see through
            return drained(error.what)
        return as_draining(found)

    async def discard(self) -> None:
        """Give the restored tree up: CRIU kills it, and nothing of it is left."""
        copy, self._copy = self._require_copy(), None
        try:
            await copy.discard()
        finally:
            await self._end_memory()

    async def _end_memory(self) -> None:
        """See the keeper of a copy end that is given up."""
        memory, self.memory = self.memory, None
        if memory is not None:
            await memory.ended()

    async def close(self, *, keep_images: bool = False, keep_logs: bool | None = None) -> None:
        """End what is under way, and remove the images; a copy that was not released is killed.

        A copy that was neither released nor discarded may be the only one, if the source was given
        up and its word got lost: then the images stay, whatever `keep_images` says, and the process
        can be restored from them.  CRIU's logs stay if something failed, since its error names
        them, unless `keep_logs` says otherwise.  May be called again.
        """
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            try:
                await self._end_iteration()
                if self._copy is not None:
                    keep_images = True
                    _logger.warning("not released: the images stay in %s", self._work.last)
                    await self.discard()
            finally:
                await self._workers.close()
                if self._cage is not None:
                    await in_thread(self._cage.kill)
                if self.memory is not None:
                    await self.memory.close()
                self._pages.close()
                self._channel.close()
                keep_images = keep_images or self._doubtful
                keep = self._failed if keep_logs is None else keep_logs
                self._work.close(remove=not keep_images, keep_logs=keep)

    async def _fail(self) -> None:
        """Leave nothing of a failed attempt but its logs."""
        self._failed = True
        self._channel.break_off()
        with anyio.CancelScope(shield=True):
            await self._workers.close()
        self._work.drop_chain(keep_logs=True)

    def _require_images(self) -> Path:
        images = self._work.last
        if images is None:
            raise UsageError("no iteration has been made: there are no images", host=self._host)
        return images

    def _require_copy(self) -> HeldCopy:
        if self._copy is None:
            raise UsageError("nothing is restored and held", host=self._host)
        return self._copy
