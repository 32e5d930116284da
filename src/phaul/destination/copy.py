"""A copy of the tree that CRIU has restored and holds still, until it is let go or given up.

Runs on the destination, in the cutover, and when a migration is settled from images that were kept.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final, Self

import anyio

from phaul.criu.images import read_inventory
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import CriuOptions, Request, RequestType, Stage
from phaul.criu.swrk import Swrk
from phaul.errors import ImageError

__all__ = ["LOG", "HeldCopy"]

LOG: Final = "restore.log"


class HeldCopy:
    """A restored tree; `pid` is its root.  `release` or `discard` it, once."""

    def __init__(self, operation: Operation, pid: int) -> None:
        self._operation = operation
        self.pid = pid

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
    ) -> Self:
        """Restore from `images` by `worker`, which is this object's from now on.

        On return all is restored, no task runs yet, and its connections are locked.  Raises
        ImageError, CriuError; nothing of it is left then.
        """
        try:
            read_inventory(images / "inventory.img")
            with directory_fd(images) as descriptor:
                request = Request(
                    RequestType.RESTORE,
                    options=options,
                    images_dir_fd=descriptor,
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
            raise
        return cls(operation, held.pid)

    async def release(self, timeout: float) -> Callable[[], Coroutine[object, object, int]]:
        """Let it run.  Raises CriuError if CRIU does not say that it does.

        Returns what reaps CRIU, which can be done beside what comes next.
        """
        operation = self._operation
        operation.timeout = timeout
        with anyio.CancelScope(shield=True):
            try:
                await operation.release()
                await operation.finish()
            except BaseException:
                await operation.worker.close()
                raise
        return operation.worker.close

    async def discard(self) -> None:
        """Give it up: CRIU kills it, and nothing of it is left."""
        with anyio.CancelScope(shield=True):
            try:
                await self._operation.refuse()
            finally:
                await self._operation.worker.close()
