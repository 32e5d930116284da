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
from phaul.policy import StopReason
from phaul.report import Downtime, PreCopyStopped, Report, Round, Started, Way
from phaul.report.events import EventHandler
from phaul.source.context import Canceller, Context, Remote
from phaul.source.cutover import Cutover, Release
from phaul.source.precopy import run_rounds
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

    `open_channel` makes the memory channel of a descriptor and this host's name, for one with
    options.
    """

    def __init__(
        self,
        config: Config,
        local: Local,
        remote: Remote,
        emit: EventHandler | None = None,
        *,
        open_channel: OpenChannel = MemoryChannel,
    ) -> None:
        if config.pid is None:
            raise UsageError("the source's configuration needs a pid")
        self._config = config
        self._pid = config.pid
        self._local = local
        self._remote = remote
        self._emit = emit or (lambda _event: None)
        self._open_channel = open_channel
        self._engine = Engine(config.criu_command, HOST)
        self.canceller = Canceller()
        self.channel_used = False
        """Whether the channel may hold bytes of this attempt: then the next needs a fresh one."""

    async def migrate(self) -> Report:
        """Move the process; returns when it is gone from here, and released there.

        Raises PreflightError before anything was done; RoundFailed, CutoverFailed and Cancelled
        when all was undone; OutcomeUnknown when that cannot be told.
        """
        begun = time.monotonic()
        subject = examine(self._pid, HOST)
        try:
            async with AsyncExitStack() as stack:
                return await self._prepare_and_move(stack, subject, begun)
        except PhaulError as error:
            error.fate = error.fate or subject.fate()
            raise

    async def _prepare_and_move(
        self, stack: AsyncExitStack, subject: Subject, begun: float
    ) -> Report:
        channel = self._open_channel(self._config.memory_fd, HOST)
        stack.callback(channel.close)
        workers = Workers(self._engine, (channel.criu_fd,))
        await stack.enter_async_context(workers)
        facts = await self._examine(workers)
        work_dir = WorkDir.open(self._config.work_dir, HOST)
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
        )
        self.channel_used = True
        try:
            return await self._move(context, facts, begun)
        except OutcomeUnknown:
            raise  # the images may be all that is left
        except BaseException as error:
            channel.break_off()
            work_dir.drop_chain(keep_logs=not isinstance(error, Cancelled))
            raise

    async def _examine(self, workers: Workers) -> Facts:
        facts = await workers.examine()
        peer = self._config.peer_criu
        if peer and peer.wide_page_server != facts.version.wide_page_server:
            raise IncompatiblePeer(
                f"the page server protocols of criu {facts.version} here and {peer} there differ",
                host=HOST,
                remedy="install CRIU 4.2 or newer on both, or an older one on both",
            )
        if self._config.require_pre_copy:
            facts.require_mem_track(HOST)
        return facts

    async def _move(self, context: Context, facts: Facts, begun: float) -> Report:
        subject = context.subject
        memory = subject.memory_bytes()
        way = Way.PRE_COPY if facts.mem_track else Way.STOP_AND_COPY
        context.emit(
            Started(
                pid=subject.pid,
                name=subject.name,
                way=way,
                reason="" if facts.mem_track else StopReason.NO_TRACKING.explain(()),
                memory_bytes=memory,
                criu=str(facts.version),
            )
        )
        rounds: list[Round] = []
        reason = StopReason.NO_TRACKING
        if facts.mem_track:
            rounds, reason = await run_rounds(context)
        explanation = reason.explain([r.sent_pages for r in rounds])
        context.emit(PreCopyStopped(reason=reason.value, explanation=explanation))
        final, downtime = await self._cut_over(context, tracked=bool(rounds))
        return Report(
            pid=subject.pid,
            name=subject.name,
            way=way,
            reason=reason.value,
            explanation=explanation,
            memory_bytes=memory,
            rounds=tuple(rounds),
            final=final,
            downtime=downtime,
            seconds=time.monotonic() - begun,
        )

    async def _cut_over(self, context: Context, *, tracked: bool) -> tuple[Round, Downtime]:
        cutover = Cutover(context, tracked=tracked)
        try:
            with context.canceller.window():
                await cutover.start()
            release = await self._local.dump_copy_restore(cutover)
            cutover.require_held()
        except Exception as error:
            await cutover.roll_back(error)
            if isinstance(error, Cancelled):
                raise
            raise CutoverFailed(f"the cutover failed: {error}", host=HOST) from error
        except BaseException as error:
            await cutover.roll_back(error)
            raise
        return await cutover.commit(release)
