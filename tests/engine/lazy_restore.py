"""A victim dumped, and restored lazily from the page store; chains made of one dump."""

import os
import select
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from phaul.criu.engine import Engine
from phaul.criu.images import PageFlags, Pagemap, PageRange, read_pagemap
from phaul.criu.images.lazy import encode_pagemap
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.criu.workers import Workers
from phaul.destination.chain import Chain
from phaul.destination.lazy import LazyPages, Standby
from phaul.pages.remote import RemotePages
from phaul.pages.store import Index, Missing, Piece
from tests.engine.conftest import SLOW

ENGINE = Engine()
PAGE = 4096


async def dump(pid: int, images: Path) -> None:
    """Dump and kill, and see that its PID is free."""
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
    with anyio.fail_after(20 * SLOW):
        while Path(f"/proc/{pid}").exists():
            await anyio.sleep(0.005)


@dataclass
class Restored:
    """A restore in progress, held before its tasks run, and the two that bring its memory."""

    operation: Operation
    pages: LazyPages
    pid: int

    async def release(self) -> None:
        """Let it run."""
        await self.operation.release()
        await self.operation.finish()


@asynccontextmanager
async def lazily(
    chain: Chain,
    images: Path,
    *,
    log_level: int = 2,
    remote: Callable[[Chain, Path], RemotePages] | None = None,
) -> AsyncIterator[Restored]:
    """Restore from `images`, the last of the chain, whose earlier rounds were added.

    `remote` makes what brings the pages that were left on the source.
    """
    async with Workers(ENGINE) as workers:
        facts = await workers.examine()
    async with AsyncExitStack() as stack:
        stack.callback(chain.close)
        standby = Standby.begin(ENGINE.program, images.parent / "standby", log_level=log_level)
        stack.push_async_callback(standby.end)
        await standby.tell(images)
        chain.finish(images, standby.folder)
        bringing = remote(chain, images) if remote else None
        wide = facts.version.wide_page_server
        pages = await LazyPages.start(standby, chain, images, wide=wide, remote=bringing)
        stack.push_async_callback(pages.end)
        if bringing is not None:
            stack.callback(bringing.close)
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
                operation = Operation(worker, request, images / "restore.log", 20 * SLOW)
                await operation.begin()
                held = await operation.until(Stage.POST_RESTORE)
            assert held.pid is not None
            await pages.guard()
            yield Restored(operation, pages, held.pid)


async def restore_in_full(images: Path) -> None:
    """Restore as CRIU does without lazy pages."""
    async with ENGINE.worker() as worker:
        with directory_fd(images) as descriptor:
            request = Request(RequestType.RESTORE, images_dir_fd=descriptor, log_file="restore.log")
            operation = Operation(worker, request, images / "restore.log", 20 * SLOW)
            await operation.begin()
            await operation.finish()


def end_tree(pid: int) -> None:
    """Kill a process that may wait for memory, and see it gone."""
    descriptor = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([descriptor], [], [], 20 * SLOW)[0], "it does not die"
    finally:
        os.close(descriptor)


class SlowIndex(Index):
    """Keeps pages missing for a while: each piece of an answer takes `pause` seconds longer.

    With `lacks` it does not know any page any more.
    """

    pause = 0.0
    lacks = False

    def find(self, pagemap: int, address: int, pages: int) -> Piece | Missing:
        time.sleep(self.pause)
        if self.lacks:
            return Missing(pages, elsewhere=True)
        return super().find(pagemap, address, pages)


def make_chain(images: Path, last: Path) -> list[Path]:
    """Make of the dump in `last` the end of a chain of three rounds; the two before it.

    The pages of each process are dealt out: to one round, with others before it that have the page
    as it was earlier, and with nothing or PARENT after it.
    """
    rounds = [images / "round-0", images / "round-1"]
    for folder in rounds:
        folder.mkdir()
    for path in sorted(last.glob("pagemap-[0-9]*.img")):
        found = read_pagemap(path)
        memory = last / f"pages-{found.pages_id}.img"
        maps: list[list[PageRange]] = [[], [], []]
        data = [bytearray(), bytearray(), bytearray()]
        whole = memory.read_bytes()
        at = 0
        for here in found.ranges:
            assert PageFlags.PRESENT in here.flags
            for start, pages, owner, first in _deal(here):
                end = at + pages * PAGE
                for level in range(3):
                    if level == owner:
                        data[level] += whole[at:end]
                        flags = here.flags
                    elif level > owner:
                        flags = PageFlags.PARENT
                    elif level >= first:
                        data[level] += b"\xa5" * (pages * PAGE)
                        flags = here.flags
                    else:
                        continue
                    maps[level].append(PageRange(start, pages, flags))
                at = end
        assert at == len(whole)
        for folder, ranges, content in zip((*rounds, last), maps, data, strict=True):
            fresh = folder / path.name
            fresh.unlink(missing_ok=True)
            fresh.write_bytes(encode_pagemap(Pagemap(found.pages_id, tuple(ranges))))
            (folder / memory.name).write_bytes(content)
    (rounds[1] / "parent").symlink_to(Path("..") / rounds[0].name)
    (last / "parent").symlink_to(os.path.relpath(rounds[1], last))
    return rounds


def make_hybrid(images: Path, last: Path) -> list[Path]:
    """Make of a dump in `last` that left the memory out the end of a chain; the round before it.

    Half of what was left out is in the round, and PARENT in the dump, as if it had not been written
    to since.  The rest is in it as it was earlier, and still on the source.  The tree is frozen.
    """
    folder = images / "round-0"
    folder.mkdir()
    for path in sorted(last.glob("pagemap-[0-9]*.img")):
        found = read_pagemap(path)
        early: list[PageRange] = []
        late: list[PageRange] = []
        data = bytearray()
        process = path.stem.removeprefix("pagemap-")
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            for here in found.ranges:
                if here.flags != PageFlags.LAZY:
                    late.append(here)
                    continue
                for start, pages, owner, first in _deal(here):
                    memory.seek(start)
                    now = memory.read(pages * PAGE)
                    clean = owner == 0 or first == 1
                    data += now if clean else b"\xa5" * len(now)
                    early.append(PageRange(start, pages, PageFlags.PRESENT | PageFlags.LAZY))
                    flags = PageFlags.PARENT if clean else PageFlags.LAZY
                    late.append(PageRange(start, pages, flags))
        name = f"pages-{found.pages_id}.img"
        (folder / path.name).write_bytes(encode_pagemap(Pagemap(found.pages_id, tuple(early))))
        (folder / name).write_bytes(data)
        path.write_bytes(encode_pagemap(Pagemap(found.pages_id, tuple(late))))
    (last / "parent").symlink_to(os.path.relpath(folder, last))
    return [folder]


def _deal(here: PageRange) -> Iterator[tuple[int, int, int, int]]:
    """Parts of a range: address, pages, its round, the first that has an older one."""
    at, number = here.start, here.start // PAGE
    while at < here.end:
        number = number * 1103515245 + 12345 & 0x7FFFFFFF
        pages = min(1 + (number >> 8) % 40, (here.end - at) // PAGE)
        owner = (number >> 16) % 3
        yield at, pages, owner, (number >> 20) % (owner + 1)
        at += pages * PAGE
