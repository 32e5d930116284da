"""The source of a post-copy, step by step, for the tests; the far side is `far_side`."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from phaul.criu.operation import directory_fd
from phaul.criu.rpc import Request, RequestType
from phaul.criu.workers import Workers
from phaul.protocol.ownership import SourceState
from phaul.source.ownership import Ownership
from phaul.source.postcopy import PostCopy
from phaul.subjects.proc import Proc
from phaul.subjects.process import examine
from phaul.subjects.tree import tree_pids
from tests.engine.conftest import SLOW, copies_of
from tests.engine.far_side import FarSide
from tests.engine.lazy_restore import ENGINE

PATIENCE_S = 20


class NearSide:
    """A tree that is dumped without its memory, and stands frozen in its second lock."""

    def __init__(self, post: PostCopy, owner: Ownership, pid: int, images: Path) -> None:
        self.post = post
        self.owner = owner
        self.pid = pid
        self.images = images

    def link(self, far: FarSide) -> socket.socket:
        """A new link to the far side; a copy of the near end, to cut it."""
        near = far.link()
        copy = near.dup()
        self.post.supply.attach(near)
        return copy

    async def hand_over(self) -> None:
        """The commit: what was the process is gone from here."""
        self.owner.decide()
        await self.post.hand_over(self.owner.kill)
        assert self.owner.state is SourceState.GONE

    async def drained(self) -> None:
        """Until nobody needs this side any more, and the last of the tree is dead."""
        with anyio.fail_after(20 * SLOW):
            while self.pid in copies_of(self.pid):
                await anyio.sleep(0.001)
        await self.post.drained(PATIENCE_S * SLOW)


@asynccontextmanager
async def left(pid: int, images: Path) -> AsyncIterator[NearSide]:
    """Dump a tree, held; at the end nothing is left of what did."""
    images.mkdir(parents=True)
    async with Workers(ENGINE) as workers:
        facts = await workers.examine()
    post = PostCopy.start(ENGINE, wide=facts.version.wide_page_server)
    owner = Ownership(examine(pid), None, second_lock=True)
    try:
        owner.freeze()
        with directory_fd(images) as descriptor:
            request = Request(
                RequestType.DUMP, images_dir_fd=descriptor, pid=pid, log_file="dump.log"
            )
            await post.dump(request, images / "dump.log", 60 * SLOW, lambda: tree_pids(pid, Proc()))
        await owner.lock()
        yield NearSide(post, owner, pid, images)
    finally:
        await owner.tidy()
        await post.close()


async def move(near: NearSide, far: FarSide, rounds: list[Path], *, sweep: bool = True) -> Any:  # noqa: ANN401
    """All of it, over one link; what the far side says at the end."""
    with near.link(far):
        far.tell("restore", images=str(near.images), rounds=[str(r) for r in rounds], sweep=sweep)
        await far.hear("ready")
        await near.hand_over()
        far.tell("release")
        await far.hear("running")
        async with anyio.create_task_group() as group:
            group.start_soon(near.drained)
            return await far.hear("drained")
