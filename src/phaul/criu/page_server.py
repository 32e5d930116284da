"""CRIU's page server for one round: started as a worker's child, awaited, its status read.

Used on the destination, once a round and once in the cutover.  CRIU acknowledges the end of a round
*before* it has written the page map, so nothing may read the images, nor may the next round start,
until `wait` has returned.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio

from phaul.criu.log import decisive_line, remedy_for
from phaul.criu.operation import directory_fd, failure
from phaul.criu.rpc import Request, RequestType
from phaul.criu.swrk import Swrk, describe_exit
from phaul.errors import CriuError, CriuTimeout

__all__ = ["PageServer"]

LOG: Final = "page-server.log"
_START_S: Final = 30.0


@dataclass(eq=False)
class PageServer:
    """A running page server that writes into `images_dir`.

    It is CRIU's PAGE_SERVER_CHLD: the daemon form would lose its exit status.
    """

    worker: Swrk
    pid: int
    images_dir: Path

    @classmethod
    async def start(
        cls, worker: Swrk, images_dir: Path, parent: str | None, memory_fd: int, log_level: int
    ) -> Self:
        """Start one that reads from the socket `memory_fd`, which `worker` was started with.

        `parent` is the link to write.  The worker is the page server's own from now on.
        Raises CriuError if it does not start.
        """
        log_path = images_dir / LOG
        try:
            with directory_fd(images_dir) as descriptor:
                request = Request(
                    RequestType.PAGE_SERVER_CHLD,
                    images_dir_fd=descriptor,
                    parent_img=parent,
                    memory_fd=memory_fd,
                    log_file=LOG,
                    log_level=log_level,
                    keep_open=True,
                )
                worker.log_path = log_path
                with anyio.fail_after(_START_S):
                    answer = await worker.call(request)
            if not answer.success or not answer.pid:
                raise failure(request.type.name, answer, log_path, worker.host)
        except TimeoutError as err:
            await worker.close()
            raise CriuTimeout(
                f"criu's page server did not start within {_START_S:g} s",
                request="PAGE_SERVER_CHLD",
                log_path=str(log_path),
                host=worker.host,
            ) from err
        except BaseException:
            await worker.close()
            raise
        return cls(worker, answer.pid, images_dir)

    async def wait(self) -> None:
        """Wait until all is written; the server is gone and reaped afterwards.

        Its worker ends then, and still has to be closed; after an error it is closed.  Takes as
        long as the round does, so the caller limits it.  Raises CriuError if the exit status is
        not 0, CriuDied if the worker ended.
        """
        try:
            await self._wait()
        except BaseException:
            await self.worker.close()
            raise

    async def _wait(self) -> None:
        log_path = self.images_dir / LOG
        answer = await self.worker.call(Request(RequestType.WAIT_PID, pid=self.pid))
        if not answer.success or answer.status is None:
            raise failure("WAIT_PID", answer, log_path, self.worker.host)
        if answer.status:
            line = decisive_line(log_path)
            raise CriuError(
                f"criu's page server {describe_exit(os.waitstatus_to_exitcode(answer.status))}",
                request="PAGE_SERVER_CHLD",
                line=line,
                log_path=str(log_path),
                host=self.worker.host,
                remedy=remedy_for(line),
            )

    def late(self, seconds: float) -> CriuTimeout:
        """The error for a server that has not ended `seconds` after its round."""
        return CriuTimeout(
            f"criu's page server did not end within {seconds:g} s after the round",
            request="PAGE_SERVER_CHLD",
            line=decisive_line(self.images_dir / LOG),
            log_path=str(self.images_dir / LOG),
            host=self.worker.host,
        )

    async def close(self) -> None:
        """End its worker, when `wait` has returned."""
        await self.worker.close()

    def kill(self) -> None:
        """Kill the server and its worker; who waits for it sees it end."""
        self.worker.kill()
