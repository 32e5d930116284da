"""The cutover of a post-copy: the tree moves, its memory, or what of it is dirty, stays for now.

Runs on the source.  It differs from `Cutover` in what CRIU is asked for: no page server stands over
there, what is left out is given over the memory channel from the moment that the tree is dumped,
and the tree is killed by phaul, since CRIU would do so only when all of it has been given.

After the commit `post` still has the memory.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from phaul.criu.images import read_pagemap
from phaul.criu.images.stats import DumpStats
from phaul.criu.operation import Operation
from phaul.criu.rpc import Request
from phaul.errors import ImageError, OutcomeUnknown, PhaulError, UsageError
from phaul.protocol.ownership import SourceState
from phaul.report import CutoverStarted
from phaul.source.context import Context, Follow
from phaul.source.cutover import Cutover
from phaul.source.ownership import Ownership
from phaul.source.postcopy import PostCopy
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from phaul.transport.beside import beside

__all__ = ["Leaving"]

_NONE: Final = DumpStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Leaving(Cutover):
    """A cutover that leaves memory behind; `follow` tells the destination that it follows.

    Whoever has it must `close` its `post`, however it ends.  `wide` is
    `Version.wide_page_server` of this host's CRIU.
    """

    def __init__(
        self,
        context: Context,
        ownership: Ownership,
        *,
        tracked: bool,
        follow: Follow,
        wide: bool,
    ) -> None:
        super().__init__(context, ownership, tracked=tracked)
        self._follow = follow
        self._wide = wide
        self._post: PostCopy | None = None

    @property
    def post(self) -> PostCopy:
        """What has the memory; there is one once it was started."""
        assert self._post is not None
        return self._post

    @property
    def left(self) -> PostCopy:
        """What has the memory; see `Cutover.left`."""
        return self.post

    async def close(self) -> None:
        """Give up the memory, and reap CRIU."""
        await self._end_criu()

    async def start(self) -> None:
        """Make the destination ready; the process still runs."""
        context = self._context
        context.channel.check()
        tree, last = context.tree, self.last_images_dir
        if tree is not None and last is not None:
            try:
                await anyio.to_thread.run_sync(tree.write, last)
            except OSError as error:
                raise ImageError(f"{last}: cannot be written: {error.strerror}") from error
        self._post = PostCopy.start(
            context.workers.engine, wide=self._wide, config_file=context.config.options.config_file
        )
        await self._follow()
        self._started = True
        context.emit(CutoverStarted())

    async def _dump(self, request: Request, log_path: Path) -> None:
        context, pid = self._context, self._context.subject.pid
        post = self.post
        try:
            await post.dump(
                request,
                log_path,
                context.config.timeouts.dump,
                lambda: tree_pids(pid, Proc()),
                self._at_stage,
            )
        finally:
            with suppress(UsageError):  # it may not even have been asked for
                self._operation = post.held.operation
        post.supply.attach(context.channel.duplicate())

    async def _hold(self, tasks: TaskGroup | None) -> None:
        """Lock the tree; there is nothing else to be waited for."""
        if tasks is not None:
            tasks.start_soon(self._lock)
            return
        async with beside(wait=True) as own:
            own.start_soon(self._lock)
        await self.locked()

    async def _refuse(self, operation: Operation) -> None:
        await self.post.refuse()

    async def _end_criu(self) -> None:
        if self._post is not None:
            await self._post.close()

    async def _give_up(self, operation: Operation) -> None:
        """Kill the tree, and have CRIU give its memory; raises what `commit` does."""
        try:
            await self.post.hand_over(self._ownership.kill)
        except BaseException as error:
            if self._ownership.state is SourceState.DECIDED and self._ownership.untouched:
                failed = await self._let_go(error)
                await self.post.close()
                raise failed from error
            if isinstance(error, PhaulError) and self._ownership.state is SourceState.GONE:
                for failure in await self._ownership.tidy():
                    error.add_note(str(failure))
                raise OutcomeUnknown(
                    f"the process was handed over, but its memory is lost: {error.what}",
                    host=self._context.host,
                    remedy="start the process anew: no host has all of its memory any more",
                    fate="lost: it was handed over, and criu, which had its memory, ended",
                ) from error
            raise

    def _statistics(self, images: Path, killed: float) -> DumpStats:
        """What was dumped all the same; CRIU writes its own statistics only at its end."""
        counts = [0, 0]
        for path in images.glob("pagemap-*.img"):
            counts[path.name.startswith("pagemap-shmem-")] += read_pagemap(path).present_pages
        frozen_us = round((killed - self._begun) * 1e6)
        return replace(
            _NONE, frozen_us=frozen_us, pages_written=counts[0], shpages_written=counts[1]
        )
