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

from phaul.criu.engine import Engine
from phaul.criu.log import decisive_line, remedy_for
from phaul.criu.operation import directory_fd, failure
from phaul.criu.rpc import Request, RequestType
from phaul.criu.swrk import Swrk
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
        cls, engine: Engine, images_dir: Path, parent: str | None, memory_fd: int, log_level: int
    ) -> Self:
        """Start one that reads from the socket `memory_fd`; `parent` is the link to write.

        Raises CriuError if it does not start.
        """
        log_path = images_dir / LOG
        worker = engine.worker(pass_fds=(memory_fd,))
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
                raise failure(request.type.name, answer, log_path, engine.host)
        except TimeoutError as err:
            await worker.close()
            raise CriuTimeout(
                f"criu's page server did not start within {_START_S:g} s",
                request="PAGE_SERVER_CHLD",
                log_path=str(log_path),
                host=engine.host,
            ) from err
        except BaseException:
            await worker.close()
            raise
        return cls(worker, answer.pid, images_dir)

    async def wait(self, timeout: float) -> None:
        """Wait until all is written, at most `timeout` seconds; the server is gone afterwards.

        Raises CriuError if its exit status is not 0, CriuTimeout if it did not end.  On a timeout
        shut the memory socket down before `close`, or the server reads on.
        """
        try:
            with anyio.fail_after(timeout):
                answer = await self.worker.call(Request(RequestType.WAIT_PID, pid=self.pid))
        except TimeoutError as err:
            raise CriuTimeout(
                f"criu's page server did not end within {timeout:g} s after the round",
                request="PAGE_SERVER_CHLD",
                line=decisive_line(self.images_dir / LOG),
                log_path=str(self.images_dir / LOG),
                host=self.worker.host,
            ) from err
        status = answer.status
        await self.worker.close()
        if not answer.success or status is None:
            raise failure("WAIT_PID", answer, self.images_dir / LOG, self.worker.host)
        if status:
            code = os.waitstatus_to_exitcode(status)
            line = decisive_line(self.images_dir / LOG)
            raise CriuError(
                f"criu's page server failed with status {code}",
                request="PAGE_SERVER_CHLD",
                line=line,
                log_path=str(self.images_dir / LOG),
                host=self.worker.host,
                remedy=remedy_for(line),
            )

    async def close(self) -> None:
        """End the server, whatever it does; it and its worker are reaped."""
        self.worker.kill()
        await self.worker.close()
