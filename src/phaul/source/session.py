"""A whole migration as the source sees it: preflight, rounds, cutover, report.

Runs on the source.  Everything before the cutover's commit is undone on any failure, and every
error that leaves here says where the process is.
"""

import time
from contextlib import AsyncExitStack
from typing import Protocol

from phaul.config import Config
from phaul.criu.engine import Engine, Facts
from phaul.criu.workers import Workers
from phaul.errors import (
    Cancelled,
    CutoverFailed,
    IncompatiblePeer,
    OutcomeUnknown,
    PhaulError,
    UsageError,
)
from phaul.pages.channel import MemoryChannel, OpenChannel
from phaul.policy import NO_ROUNDS, NO_TRACKING
from phaul.report import Downtime, PreCopyStopped, Report, Round, Started, Way
from phaul.report.events import EventHandler
from phaul.source.context import Canceller, Context, Follow, Judge, PageJudge, Remote
from phaul.source.cutover import Cutover, Release
from phaul.source.hugepages import HugePages
from phaul.source.leaving import Leaving
from phaul.source.ownership import Ledger, Ownership
from phaul.source.postcopy import PostCopy
from phaul.source.precopy import run_rounds
from phaul.source.roundtree import RoundTree
from phaul.source.slowing import Slowing
from phaul.storage.workdir import WorkDir
from phaul.subjects.process import Subject, examine

__all__ = ["Local", "Remote", "SourceSession"]

HOST = "source"


class Local(Protocol):
    """What the caller does on the source in the cutover."""

    async def dump_copy_restore(self, cutover: Cutover) -> Release | None:
        """Dump with `cutover.dump()`, copy its images, restore them on the destination.

        To return kills the tree on the source, to raise lets it run on.  The restored tree should
        stand still until then; what is returned is called to let it run.
        """


class SourceSession:
    """One migration on the source, which may be tried again with a fresh socket after a failure.

    `judge` ends the pre-copy, by default the configuration's stop rule does.  `facts` are the
    engine's, and `host` this host's name in messages, where the caller knows them already.
    `open_channel` makes the memory channel of a descriptor and this host's name.  `ledger` is where
    the steps of the cutover are written down, so that they can be settled after a crash.  `slowing`
    is what slows the process down when the judge wants it, `huge` what looks at its huge pages.

    `follow` tells the destination that memory follows; without it none is left behind.  With
    `post_copy` there are no rounds; else what is dirty is left if the judge says so.  Then `post`
    has it when `migrate` has returned, and whoever made this has to `close` it when that is over.
    """

    def __init__(
        self,
        config: Config,
        local: Local,
        remote: Remote,
        emit: EventHandler | None = None,
        *,
        judge: Judge | None = None,
        canceller: Canceller | None = None,
        facts: Facts | None = None,
        host: str = HOST,
        open_channel: OpenChannel = MemoryChannel,
        ledger: Ledger | None = None,
        slowing: Slowing | None = None,
        huge: HugePages | None = None,
        follow: Follow | None = None,
        post_copy: bool = False,
    ) -> None:
        if config.pid is None:
            raise UsageError("the source's configuration needs a pid")
        self._config = config
        self._pid = config.pid
        self._local = local
        self._remote = remote
        self._emit = emit or (lambda _event: None)
        self._open_channel = open_channel
        self._engine = Engine(config.criu_command, host)
        self._host = host
        self._ledger = ledger
        self._slowing = slowing
        self._huge = huge
        if post_copy and follow is None:
            raise UsageError("a post-copy needs a destination that can be told of it")
        self._follow = follow
        self._post_copy = post_copy
        self._kept = AsyncExitStack()
        self.post: PostCopy | None = None
        self._facts = facts
        self._judge = judge or PageJudge(config.stop_rule)
        self.canceller = canceller or Canceller()
        self.channel_used = False
        """Whether the channel may hold bytes of this attempt: then the next needs a fresh one."""

    async def migrate(self) -> Report:
        """Move the process; returns when it is gone from here, and released there.

        Raises PreflightError before anything was done; RoundFailed, CutoverFailed and Cancelled
        when all was undone; OutcomeUnknown when that cannot be told.
        """
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            try:
                channel, workers = await self._open(stack)
            except PhaulError as error:
                error.fate = error.fate or examine(self._pid, self._host).fate()
                raise
            subject = examine(self._pid, self._host)
            try:
                report = await self._prepare_and_move(stack, subject, channel, workers, begun)
            except PhaulError as error:
                error.fate = error.fate or subject.fate()
                raise
            if self.post is not None:
                self._kept = stack.pop_all()
            return report

    async def close(self) -> None:
        """Give up the memory that was left, if any was; to be called when nobody needs it."""
        await self._kept.aclose()

    async def _open(self, stack: AsyncExitStack) -> tuple[MemoryChannel, Workers]:
        """The memory channel, and the first worker, which starts beside all that is looked at."""
        channel = self._open_channel(self._config.memory_fd, self._host)
        stack.callback(channel.close)
        workers = Workers(self._engine, (channel.criu_fd,))
        await stack.enter_async_context(workers)
        workers.get_ready()
        return channel, workers

    async def _prepare_and_move(
        self,
        stack: AsyncExitStack,
        subject: Subject,
        channel: MemoryChannel,
        workers: Workers,
        begun: float,
    ) -> Report:
        facts = await self._examine(workers)
        work_dir = WorkDir.open(self._config.work_dir, self._host)
        stack.callback(work_dir.close)
        context = Context(
            self._config,
            subject,
            workers,
            channel,
            work_dir,
            self._remote,
            self._emit,
            self.canceller,
            self._judge,
            begun,
            self._slowing,
            RoundTree(subject.pid) if self._follow is not None else None,
            self._huge,
        )
        self.channel_used = True
        try:
            return await self._move(stack, context, facts, begun)
        except BaseException as error:
            if self._slowing is not None:
                await self._slowing.end(error)
            if self._huge is not None:
                await self._huge.end(error)
            if not isinstance(error, OutcomeUnknown):  # the images may be all that is left
                channel.break_off()
                work_dir.drop_chain(keep_logs=not isinstance(error, Cancelled))
            raise

    async def _examine(self, workers: Workers) -> Facts:
        facts = self._facts or await workers.examine()
        peer = self._config.peer_criu
        if peer and peer.wide_page_server != facts.version.wide_page_server:
            raise IncompatiblePeer(
                f"the page server protocols of criu {facts.version} here and {peer} there differ",
                host=self._host,
                remedy="install CRIU 4.2 or newer on both, or an older one on both",
            )
        if self._config.require_pre_copy:
            facts.require_mem_track(self._host)
        return facts

    async def _move(
        self, stack: AsyncExitStack, context: Context, facts: Facts, begun: float
    ) -> Report:
        subject = context.subject
        memory = subject.memory_bytes()
        way, reason, explanation = self._way(facts)
        context.emit(
            Started(
                pid=subject.pid,
                name=subject.name,
                way=way,
                reason=explanation,
                memory_bytes=memory,
                criu=str(facts.version),
            )
        )
        rounds: list[Round] = []
        if way is Way.PRE_COPY:
            rounds, verdict = await run_rounds(context)
            reason, explanation = verdict.reason.value, verdict.explanation
        context.emit(PreCopyStopped(reason=reason, explanation=explanation))
        if rounds and context.judge.leaves:
            way = Way.HYBRID
        cutover = self._cutover(context, facts, way)
        final, downtime = await self._cut_over(stack, context, cutover)
        if context.slowing is not None:
            await context.slowing.end()
        if context.huge is not None:
            await context.huge.end()
            final = context.huge.told(final)
        split = context.huge.report if context.huge is not None else None
        return Report(
            pid=subject.pid,
            name=subject.name,
            way=way,
            reason=reason,
            explanation=explanation,
            memory_bytes=memory,
            rounds=tuple(rounds),
            final=final,
            downtime=downtime,
            seconds=time.monotonic() - begun,
            slowdown=context.slowing.report if context.slowing is not None else None,
            split=split,
        )

    def _way(self, facts: Facts) -> tuple[Way, str, str]:
        """The way, and why there are no rounds if there are none: a StopReason, and in words."""
        if self._post_copy:
            return Way.POST_COPY, NO_ROUNDS.reason.value, NO_ROUNDS.explanation
        if facts.mem_track:
            return Way.PRE_COPY, "", ""
        return Way.STOP_AND_COPY, NO_TRACKING.reason.value, NO_TRACKING.explanation

    def _cutover(self, context: Context, facts: Facts, way: Way) -> Cutover:
        leaves = way in (Way.POST_COPY, Way.HYBRID)
        ownership = Ownership(
            context.subject,
            self._ledger,
            second_lock=self._config.second_lock,
            follows=leaves,
        )
        tracked = way in (Way.PRE_COPY, Way.HYBRID)
        if not leaves:
            return Cutover(context, ownership, tracked=tracked)
        if self._follow is None:
            raise UsageError("memory is to be left, but the destination cannot be told of it")
        return Leaving(
            context,
            ownership,
            tracked=tracked,
            follow=self._follow,
            wide=facts.version.wide_page_server,
        )

    async def _cut_over(
        self, stack: AsyncExitStack, context: Context, cutover: Cutover
    ) -> tuple[Round, Downtime]:
        stack.push_async_callback(cutover.close)
        try:
            with context.canceller.window():
                await cutover.start()
            release = await self._local.dump_copy_restore(cutover)
            cutover.decide()
        except Exception as error:
            await cutover.roll_back(error)
            if isinstance(error, Cancelled):
                raise
            raise CutoverFailed(f"the cutover failed: {error}", host=self._host) from error
        except BaseException as error:
            await cutover.roll_back(error)
            raise
        done = await cutover.commit(release)
        self.post = cutover.left
        return done
