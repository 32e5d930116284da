"""A copy of the tree that CRIU has restored and holds still, until it is let go or given up.

Runs on the destination, in the cutover, and when a migration is settled from images that were kept.
"""

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final, Self

import anyio
from anyio.to_thread import run_sync as in_thread

from phaul.criu.images import read_inventory
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import CriuOptions, NetworkLock, Request, RequestType, Response, Stage
from phaul.criu.swrk import Swrk
from phaul.destination.cage import Cage
from phaul.destination.ending import end_tree
from phaul.errors import ImageError, PhaulError
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m

__all__ = ["LOG", "STATISTICS", "HeldCopy", "criu_options"]

LOG: Final = "restore.log"
STATISTICS: Final = "stats-restore"

_logger = logging.getLogger("phaul")


class HeldCopy:
    """A restored tree; `pid` is its root.  `release` or `discard` it, once."""

    def __init__(self, operation: Operation, pid: int, cage: Cage | None) -> None:
        self._operation = operation
        self._cage = cage
        self._gathering: anyio.Event | None = None
        self.pid = pid
        self._root = Incarnation.of(pid)
        # Once CRIU has said `pre-resume` all of it runs, whatever becomes of CRIU: so it was with
        # each of those that were killed after it.  Killed before, most waited for ever, some were
        # dead in part.
        self._resumed = False

    @classmethod
    async def restore(
        cls,
        worker: Swrk,
        images: Path,
        options: CriuOptions,
        *,
        timeout: float,
        log_level: int,
        host: str,
        cage: Cage | None = None,
        lazily: bool = False,
    ) -> Self:
        """Restore from `images` by `worker`, which is this object's from now on.

        With `lazily` CRIU's daemon stands, and brings the memory.
        On return all is restored, no task runs yet, and its connections are locked.  Raises
        ImageError, CriuError; nothing of it is left then, as far as CRIU ends it or it was caged.
        """
        try:
            if cage is not None:
                await _hold(cage, worker.process.pid)
            worker.takes_along = True
            read_inventory(images / "inventory.img")
            # Of a restore before this one: it would say that this one let its tree go.
            (images / STATISTICS).unlink(missing_ok=True)
            with directory_fd(images) as descriptor:
                request = Request(
                    RequestType.RESTORE,
                    options=options,
                    images_dir_fd=descriptor,
                    lazy_pages=lazily,
                    notify=True,
                    log_file=LOG,
                    log_level=log_level,
                )
                operation = Operation(worker, request, images / LOG, timeout)
                await operation.begin()
                held = await operation.until(Stage.POST_RESTORE)
            if held.pid is None:
                await operation.refuse()
                raise ImageError("criu does not say what it restored", host=host)
        except BaseException:
            await worker.close()
            await _end(cage)
            raise
        return cls(operation, held.pid, cage)

    @classmethod
    async def again(
        cls, worker: Swrk, images: Path, options: m.RestoreOptions, timeout: float, cage: Cage
    ) -> Self:
        """Restore from images that were kept, in full; see `restore`."""
        return await cls.restore(
            worker,
            images,
            criu_options(options),
            timeout=timeout,
            log_level=2,
            host=worker.host,
            cage=cage,
        )

    async def gather(self) -> None:
        """Cage what CRIU moved out of the cage, once; the copy may be let go or ended meanwhile.

        Nobody has to wait for this: until it is done, all of it is found from its root.
        """
        if self._cage is None or self._gathering is not None:
            return
        self._gathering = anyio.Event()
        with anyio.CancelScope(shield=True):
            try:
                await in_thread(self._cage.gather, self.pid)
            finally:
                self._gathering.set()

    async def _gathered(self) -> None:
        """Wait until it is caged; what was not begun is not to be begun any more."""
        if self._gathering is None:
            self._gathering = anyio.Event()
            self._gathering.set()
        await self._gathering.wait()

    async def release(self, timeout: float) -> Callable[[], Coroutine[object, object, int]]:
        """Let it run.  Raises CriuError if CRIU failed before it did; then nothing of it is left.

        Returns what reaps CRIU, which can be done beside what comes next.
        """
        operation = self._operation
        operation.worker.takes_along = False  # a shell's job stays in CRIU's process group
        operation.timeout = timeout
        operation.handler = self._heed
        if self._cage is not None:
            self._cage.disown()
        with anyio.CancelScope(shield=True):
            try:
                await operation.release()
                await operation.finish()
            except PhaulError as error:
                await operation.worker.close()
                if not self._resumed:
                    # Some of its tasks may wait for CRIU for ever, others run: it is ended as one.
                    await self._gathered()
                    await _end(self._cage)
                    await end_tree(self._root)
                    raise
                _logger.warning("criu failed when it had let the process go: %s", error)
            except BaseException:
                await operation.worker.close()
                raise
        return self._leave

    async def _heed(self, notification: Response) -> None:
        self._resumed = self._resumed or notification.stage is Stage.PRE_RESUME

    async def _leave(self) -> int:
        with anyio.CancelScope(shield=True):
            status = await self._operation.worker.close()
            await self._gathered()
            if self._cage is not None:
                await in_thread(self._cage.leave)
        return status

    async def discard(self) -> None:
        """Give it up: CRIU kills it, and nothing of it is left."""
        with anyio.CancelScope(shield=True):
            try:
                await self._gathered()
                await self._operation.refuse()
            finally:
                await self._operation.worker.close()
                await _end(self._cage)
                await end_tree(self._root)


async def _hold(cage: Cage, pid: int) -> None:
    if cage.holds_at_once(pid):
        cage.hold(pid)  # the way to a thread and back would take longer
    else:
        await in_thread(cage.hold, pid)


async def _end(cage: Cage | None) -> None:
    """End what CRIU itself has left."""
    if cage is not None:
        with anyio.CancelScope(shield=True):
            await in_thread(cage.kill)


def criu_options(wanted: m.RestoreOptions) -> CriuOptions:
    """The options for CRIU."""
    fields = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
    lock = wanted.network_lock
    fields["network_lock"] = None if lock is None else NetworkLock(lock)
    return CriuOptions(**fields)
