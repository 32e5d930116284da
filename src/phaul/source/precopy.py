"""The rounds of the pre-copy: each a pre-dump, received over there, until the rule stops.

Runs on the source while the process runs; it stands still for some milliseconds a round.

CRIU resets its dirty tracking while the process is frozen and sends the pages afterwards.  If the
sending fails, what the next round finds dirty is no longer all that the destination lacks: so a
failed round ends the chain, and the socket with it.
"""

import time
from pathlib import Path
from typing import Final

import anyio
import msgspec

from phaul.criu.images.stats import DumpStats, read_dump_stats
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType
from phaul.criu.swrk import Swrk
from phaul.errors import Cancelled, CgroupError, NotConverged, RoundFailed, StateError
from phaul.policy import Verdict
from phaul.report import Round, RoundFinished, RoundStarted
from phaul.source.context import Context, Judge
from phaul.source.slowing import Slowing
from phaul.transport.beside import beside

__all__ = ["end_failed_iteration", "round_of", "run_rounds"]

LOG: Final = "pre-dump.log"


async def run_rounds(context: Context) -> tuple[list[Round], Verdict]:
    """Make rounds until the judge says why to stop.

    Raises RoundFailed, Cancelled, or what the judge raises; the chain is of no use then.
    """
    rounds: list[Round] = []
    slowing = context.slowing
    if slowing is not None:
        await slowing.begin()
    huge = context.huge
    if huge is not None:
        with context.canceller.window():
            await huge.begin()
    while True:
        share = slowing.share if slowing is not None else 1.0
        with context.canceller.window():
            made = await _round(context, len(rounds))
        if huge is not None:
            made = huge.told(made)
        rounds.append(msgspec.structs.replace(made, share=share))
        rounds[-1], verdict = context.judge.judge(rounds)
        context.emit(RoundFinished(round=rounds[-1]))
        if huge is not None:
            huge.tell(rounds[-1])
        if verdict is not None:
            return rounds, verdict
        if slowing is not None and context.judge.share < slowing.share:
            await _slow_down(slowing, context.judge, rounds, context.host)


async def _slow_down(slowing: Slowing, judge: Judge, rounds: list[Round], host: str) -> None:
    try:
        await slowing.to(judge.share, rounds)
    except (CgroupError, StateError) as error:
        raise NotConverged(
            f"the pre-copy does not converge, and the process cannot be slowed down: {error.what}",
            host=host,
            remedy="allow more (--max-downtime), or move it all the same (--on-timeout cutover)",
        ) from error


async def _round(context: Context, number: int) -> Round:
    begun = time.monotonic()
    relayed = context.channel.relayed_bytes
    try:
        context.channel.check()
        worker = context.workers.take()
        try:
            async with beside(wait=True) as tasks:
                if context.huge is not None and number:
                    tasks.start_soon(context.huge.look)
                await context.remote.start_iteration()
        except BaseException:
            await worker.close()
            raise
        try:
            context.emit(RoundStarted(number=number))
            images = await _pre_dump(context, worker)
        except BaseException as error:
            context.channel.break_off()  # or CRIU might wait for it, with us
            await worker.close()
            if context.slowing is not None:  # first: the other side may be slow to answer
                await context.slowing.end(error)
            await end_failed_iteration(context, error)
            raise
        context.workers.retire(worker)
        with anyio.CancelScope(shield=True):  # a cancel must not leave it out
            await context.remote.stop_iteration()
        stats = read_dump_stats(images / "stats-dump")
    except Exception as error:
        context.channel.break_off()
        if isinstance(error, Cancelled):
            raise
        raise RoundFailed(
            f"round {number} of the pre-copy failed: {error}", host=context.host
        ) from error
    except BaseException:
        context.channel.break_off()
        raise
    seconds, since = time.monotonic() - begun, begun - context.begun
    return round_of(stats, number, seconds, _moved(context, relayed), since)


async def _pre_dump(context: Context, worker: Swrk) -> Path:
    images = context.work_dir.next()
    config = context.config
    with directory_fd(images.path) as descriptor:
        operation = Operation(
            worker,
            Request(
                RequestType.SINGLE_PRE_DUMP,
                options=config.options,
                images_dir_fd=descriptor,
                pid=context.subject.pid,
                parent_img=images.parent,
                track_mem=True,
                memory_fd=context.channel.criu_fd,
                log_file=LOG,
                log_level=config.log_level,
            ),
            images.path / LOG,
            config.timeouts.round,
        )
        async with beside() as tasks:
            if context.slowing is not None:
                tasks.start_soon(context.slowing.ease)
            if context.tree is not None:
                context.tree.begin()
            await operation.begin()
            context.workers.prepare()
            await operation.finish()
            if context.tree is not None:
                context.tree.end()
    return images.path


async def end_failed_iteration(context: Context, error: BaseException) -> None:
    """Break the channel off and let the other side end its reception.

    What the other side says of it is added to `error`: it may know the cause.
    """
    with anyio.CancelScope(shield=True):
        context.channel.break_off()
        try:
            await context.remote.stop_iteration()
        except Exception as theirs:
            if isinstance(error, Cancelled):
                return  # what else should it say of a channel that was broken off
            error.add_note(f"the other side says: {theirs}")


def round_of(
    stats: DumpStats, number: int, seconds: float, wire_bytes: int | None, begun_s: float
) -> Round:
    """The report of a round that took `seconds`, from CRIU's statistics of it."""
    return Round(
        number=number,
        pages=stats.pages_written,
        shared_pages=stats.shpages_written,
        skipped_pages=stats.pages_skipped_parent + stats.shpages_skipped_parent,
        frozen_s=stats.frozen_us / 1e6,
        seconds=seconds,
        wire_bytes=wire_bytes,
        begun_s=begun_s,
    )


def _moved(context: Context, before: int | None) -> int | None:
    now = context.channel.relayed_bytes
    return None if now is None or before is None else now - before
