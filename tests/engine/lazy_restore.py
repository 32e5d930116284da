"""A victim dumped, and restored lazily from the page store; chains made of one dump."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from phaul.criu.engine import Engine
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.criu.workers import Workers
from phaul.destination.chain import Chain
from phaul.destination.lazy import LazyPages
from tests.engine.conftest import SLOW

ENGINE = Engine()
PAGE = 4096


async def dump(pid: int, images: Path) -> None:
    """Dump and kill."""
    images.mkdir(parents=True)
    async with ENGINE.worker() as worker:
        with directory_fd(images) as descriptor:
            request = Request(
                RequestType.DUMP,
                images_dir_fd=descriptor,
                pid=pid,
                leave_running=False,
                log_file="dump.log",
            )
            operation = Operation(worker, request, images / "dump.log", 60 * SLOW)
            await operation.begin()
            await operation.finish()


@dataclass
class Restored:
    """A restore in progress, held before its tasks run, and the two that bring its memory."""

    operation: Operation
    pages: LazyPages
    pid: int

    async def release(self) -> None:
        await self.operation.release()
        await self.operation.finish()


@asynccontextmanager
async def lazily(chain: Chain, images: Path, *, log_level: int = 2) -> AsyncIterator[Restored]:
    """Restore from `images`, the last of the chain, whose earlier rounds were added."""
    async with Workers(ENGINE) as workers:
        facts = await workers.examine()
    pages = await LazyPages.start(
        ENGINE.program,
        chain,
        chain.finish(images),
        images,
        wide=facts.version.wide_page_server,
        log_level=log_level,
    )
    try:
        async with ENGINE.worker() as worker:
            with directory_fd(images) as descriptor:
                request = Request(
                    RequestType.RESTORE,
                    images_dir_fd=descriptor,
                    notify=True,
                    lazy_pages=True,
                    log_file="restore.log",
                    log_level=log_level,
                )
                operation = Operation(worker, request, images / "restore.log", 60 * SLOW)
                await operation.begin()
                held = await operation.until(Stage.POST_RESTORE)
            assert held.pid is not None
            yield Restored(operation, pages, held.pid)
    finally:
        await pages.end()
        chain.close()
