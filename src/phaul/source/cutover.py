"""The cutover on the source: the final dump, held frozen until the caller has restored it.

Runs on the source, after the pre-copy.  Whose the process is at each step is `Ownership`'s.

    dump_copy_restore called --> dump(): freeze, final dump, stop_iteration, second lock
                                     |  held in `post-dump`
                                 the caller copies the images and restores
                                     |
                         returns ----+---- raises
                            |                 |
                     decided: the tree is     the second lock is given back, CRIU thaws it:
                     killed, none is left     it runs on here
                            |
                    the caller's release
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from phaul.criu.images.lazy import is_urgent
from phaul.criu.images.stats import DumpStats, read_dump_stats
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Response, Stage
from phaul.criu.swrk import Swrk
from phaul.errors import CutoverFailed, ImageError, OutcomeUnknown, PhaulError, UsageError
from phaul.report import CutoverStarted, Downtime, Held, Round, SourceGone
from phaul.source.context import Context
from phaul.source.ownership import Ownership
from phaul.source.postcopy import PostCopy
from phaul.source.precopy import end_failed_iteration, round_of
from phaul.source.unlocking import unlock_here
from phaul.transport.beside import beside

__all__ = ["Cutover", "HeldDump", "Release"]

LOG: Final = "dump.log"
_ASKED_S: Final = 0.001
"""Within this the release has been asked for, and its answer is waited for."""

_logger = logging.getLogger("phaul")

Release = Callable[[], Awaitable[None]]
"""Lets the restored tree run; called once the source's is gone."""


@dataclass(frozen=True)
class HeldDump:
    """A finished dump whose tree stands frozen on the source; the memory has arrived over there.

    `images_dir` has all but the memory.
    """

    images_dir: Path

    def images(self) -> list[Path]:
        """The image files that the destination needs beside the memory: first the urgent ones."""
        found = self.images_dir.glob("*.img")
        return sorted(found, key=lambda image: (not is_urgent(image.name), image.name))


class Cutover:
    """What `dump_copy_restore` is given: it may be dumped once."""

    def __init__(self, context: Context, ownership: Ownership, *, tracked: bool) -> None:
        self._context = context
        self._ownership = ownership
        self._tracked = tracked
        self._worker: Swrk | None = None
        self._operation: Operation | None = None
        self._iterating = self._started = False
        self._complete = False
        self._lock_tried = anyio.Event()
        self._at_home = anyio.Event()
        if context.slowing is None:
            self._at_home.set()
        self._unlocked: Exception | None = None
        self._begun = self._held = self._ended = 0.0
        self._number = 0
        self._relayed = context.channel.relayed_bytes
        self.last_images_dir = context.work_dir.last

    @property
    def left(self) -> PostCopy | None:
        """What has the memory that was left behind, None if none was."""
        return None

    async def close(self) -> None:
        """Give up what this cutover still has, when all is over."""

    async def start(self) -> None:
        """Make the destination ready; the process still runs."""
        self._context.channel.check()
        self._worker = self._context.workers.take()
        await self._context.remote.start_iteration()
        self._iterating = self._started = True
        self._context.emit(CutoverStarted())

    async def dump(self, tasks: TaskGroup | None = None) -> HeldDump:
        """Freeze the tree and dump it; on return it is held, and its memory is on the other side.

        With `tasks` the second lock is taken by one of them, beside the copying of the images:
        before the restore is asked for, `locked` has to be awaited.
        Raises CriuError, Cancelled, or what the other side says of the memory; the tree runs on
        then.
        """
        if self._operation is not None or not self._started:
            raise UsageError("the tree can be dumped only once")
        await self._ownership.warm_up()
        context = self._context
        self._begun = time.monotonic()
        images = context.work_dir.next()
        self._number = int(images.path.name)
        with directory_fd(images.path) as descriptor:
            request = Request(
                RequestType.DUMP,
                options=context.config.options,
                images_dir_fd=descriptor,
                pid=context.subject.pid,
                parent_img=images.parent,
                track_mem=self._tracked,
                notify=True,
                memory_fd=context.channel.criu_fd,
                log_file=LOG,
                log_level=context.config.log_level,
            )
            with context.canceller.window():
                self._ownership.freeze()
                async with beside() as readying:
                    readying.start_soon(self._ownership.get_ready, self._at_home)
                    if context.slowing is not None:
                        readying.start_soon(context.slowing.ease)
                    await self._dump(request, images.path / LOG)
                with anyio.CancelScope(shield=True):  # a cancel must not leave it half done
                    await self._hold(tasks)
        self._held = time.monotonic()
        context.emit(Held(seconds=self._held - self._begun))
        context.canceller.close()
        self._complete = True
        return HeldDump(images.path)

    async def _dump(self, request: Request, log_path: Path) -> None:
        """Have it dumped as `request` says, and held in `post-dump`."""
        assert self._worker is not None
        timeout = self._context.config.timeouts.dump
        self._operation = Operation(self._worker, request, log_path, timeout, self._at_stage)
        await self._operation.begin()
        await self._operation.until(Stage.POST_DUMP)

    async def _at_stage(self, notification: Response) -> None:
        """Give it its CPU time back: it stands still now, and CRIU looks at its cgroups next."""
        if notification.stage is Stage.QUERY_EXT_FILES:
            if self._context.slowing is not None:
                await self._context.slowing.give_back()
            self._at_home.set()

    async def locked(self) -> None:
        """Wait until the tree is held for good; raises StateError if it is not going to be."""
        await self._lock_tried.wait()
        if self._unlocked is not None:
            raise self._unlocked

    async def _hold(self, tasks: TaskGroup | None) -> None:
        """Lock the tree, beside the memory's arrival, without which there is nothing to restore.

        Both are seen to their end; what the other side says counts first.
        """
        self._iterating = False
        if tasks is not None:
            tasks.start_soon(self._lock)
            await self._context.remote.stop_iteration()
            return
        async with beside(wait=True) as own:
            own.start_soon(self._lock)
            await self._context.remote.stop_iteration()
        await self.locked()

    async def _lock(self) -> None:
        operation = self._operation
        assert operation is not None
        try:
            await self._ownership.lock()
            if operation.worker.has_ended():
                # It may have run on between the dump and the lock: what was dumped is stale.
                await operation.worker.receive(operation.name)
        except Exception as error:
            self._unlocked = error
        finally:
            self._lock_tried.set()

    def require_held(self) -> Operation:
        """The complete dump in which the tree is held; raises UsageError if there is none.

        A dump whose memory did not arrive is none, even if the caller overlooked the error.
        """
        if self._operation is None or not self._complete:
            raise UsageError("dump_copy_restore returned without a complete dump")
        return self._operation

    async def roll_back(self, error: BaseException) -> None:
        """Let the tree run on here; `error` is why, and is told what fails on the way."""
        with anyio.CancelScope(shield=True):
            operation = self._operation
            self._context.channel.break_off()
            # The process first, it stands still; then the other side, which may be slow.
            for failure in await self._ownership.back():
                error.add_note(f"while the process was given back: {failure}")
            if operation is not None and operation.held is not None:
                try:
                    await self._refuse(operation)
                except (PhaulError, TimeoutError) as also:
                    error.add_note(f"while CRIU let the process go: {also}")
            await self._end_criu()
            if self._context.config.options.tcp_established and operation is not None:
                for left in await unlock_here(self._context.work_dir.path):
                    error.add_note(left)
            if self._iterating:
                self._iterating = False
                await end_failed_iteration(self._context, error)

    async def _refuse(self, operation: Operation) -> None:
        await operation.refuse()

    async def _end_criu(self) -> None:
        if self._worker is not None:
            await self._worker.close()

    def decide(self) -> None:
        """The last step that can fail and be undone; raises StateError, UsageError."""
        self.require_held()
        self._ownership.decide()

    async def commit(self, release: Release | None) -> tuple[Round, Downtime]:
        """Kill the tree here, then let it run there.

        Where no second lock holds it, CRIU has to kill it: raises CutoverFailed if it let it go
        instead, so that it runs on here.  Raises OutcomeUnknown if the release fails.
        """
        operation = self.require_held()
        operation.timeout = self._context.config.timeouts.finish
        restored = time.monotonic()
        with anyio.CancelScope(shield=True):
            await self._give_up(operation)
            killed = time.monotonic()
            try:
                async with beside(wait=True) as tasks:
                    tasks.start_soon(self._tell_gone)
                    if release is not None:
                        await self._release(release)
                    released = time.monotonic()
                await self._ownership.there()
            finally:
                await self._end_dump(operation)
                for failure in await self._ownership.tidy():
                    _logger.warning("%s", failure)
        return self._account(operation, restored, killed, released if release else killed)

    async def _give_up(self, operation: Operation) -> None:
        """Have the tree killed, and see that it is gone; raises what `commit` does.

        What the second lock holds is killed at once: CRIU's end of the dump, which takes the longer
        the more memory it had, is left for when the copy runs.
        """
        if self._ownership.locked:
            await self._ownership.kill()
            return
        failed = await self._let_end(operation)
        if not await self._ownership.gone():
            raise await self._let_go(failed)
        self._done_with(operation, failed)

    async def _end_dump(self, operation: Operation) -> None:
        """Let CRIU end the dump, if it still holds a tree that is gone."""
        if operation.held is not None:
            self._done_with(operation, await self._let_end(operation))

    async def _let_end(self, operation: Operation) -> BaseException | None:
        """Have CRIU go on to the end of the dump, where it kills the tree; returns what failed."""
        failed: BaseException | None = None
        try:
            await operation.release()
            await operation.finish()
        except BaseException as error:
            failed = error
            # Its end lets go of what it still holds of the tree; only then is that looked at.
            await operation.worker.close()
        self._ended = time.monotonic()
        return failed

    def _done_with(self, operation: Operation, failed: BaseException | None) -> None:
        if failed is None:
            self._context.workers.retire(operation.worker)
        else:
            _logger.warning("criu failed while it killed the process, which is gone: %s", failed)

    def _account(
        self, operation: Operation, restored: float, killed: float, released: float
    ) -> tuple[Round, Downtime]:
        """What the cutover came to; the arguments are the moments in which its parts ended."""
        stats = self._statistics(operation.log_path.parent, killed)
        moved = self._context.channel.relayed_bytes
        wire = None if moved is None or self._relayed is None else moved - self._relayed
        since = self._begun - self._context.begun
        final = round_of(stats, self._number, self._held - self._begun, wire, since)
        # CRIU's frozen time runs from the first frozen task to its end; what we held is ours.
        frozen = stats.frozen_us / 1e6
        dump = frozen - stats.freezing_us / 1e6 - ((self._ended or killed) - self._held)
        downtime = Downtime(
            freeze_s=stats.freezing_us / 1e6,
            dump_s=max(dump, 0.0),
            restore_s=restored - self._held,
            kill_s=killed - restored,
            release_s=released - killed,
        )
        return final, downtime

    def _statistics(self, images: Path, killed: float) -> DumpStats:
        try:
            return read_dump_stats(images / "stats-dump")
        except ImageError as error:
            # The process has moved: figures that are missing make no failure of that.
            _logger.warning("no statistics of the final dump: %s", error)
            frozen_us = round((killed - self._begun) * 1e6)
            return DumpStats(0, frozen_us, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    async def _tell_gone(self) -> None:
        """Tell that it is gone; no handler may come between the kill and the release."""
        await anyio.sleep(_ASKED_S)
        event = SourceGone()
        try:
            self._context.emit(event)
        except Exception:
            _logger.exception("the event handler failed at %s", event)

    async def _let_go(self, error: BaseException | None) -> PhaulError:
        """CRIU let all of the tree go instead of killing it: it runs on here."""
        failed = CutoverFailed(
            f"criu did not give the process up: {error or 'it does not say why'}",
            host=self._context.host,
            fate=self._context.subject.fate(),
        )
        for failure in await self._ownership.back(whole=True):
            failed.add_note(f"while the process was given back: {failure}")
        return failed

    async def _release(self, release: Release) -> None:
        try:
            await release()
        except Exception as error:
            raise OutcomeUnknown(
                f"the process is gone from here, but its release there failed: {error}",
                host=self._context.host,
                remedy="see whether it runs on the destination; its images are kept there",
                fate=self._context.subject.fate(),
            ) from error
