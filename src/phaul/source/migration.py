"""One migration as the command makes it: connect, preflight, plan, rounds, cutover, leave.

Runs on the source, from the first word to the last.  The moving itself is `SourceSession`'s; here
stands what comes before and after it, and what the two hosts say to each other.

    connect ---> hello ---> preflight ---> plan ---> memory channel, Prepare ---> SourceSession
       |           |            |           |                                        |
       +-----------+------------+-----------+---- cancel, or an error -------------->+
                                                                                     v
                                                    Discard, Bye: nothing is left over there
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from phaul.config import Config, Timeouts
from phaul.criu.engine import Engine
from phaul.criu.facts import host_name
from phaul.criu.images import read_inventory
from phaul.errors import Cancelled, ImageError, NotConverged, OutcomeUnknown, PeerError, PhaulError
from phaul.network.addresses import local_addresses
from phaul.network.locks import remove_table, table_name
from phaul.pages.channel import MemoryChannel
from phaul.pages.frames import Compression
from phaul.plan import Compress, OnTimeout, Plan, Tcp, Wishes
from phaul.protocol import messages as m
from phaul.protocol.preflight import Finding
from phaul.report import (
    Checked,
    Connected,
    Connecting,
    Event,
    Failed,
    Finished,
    Planned,
    Report,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
)
from phaul.report.events import EventHandler
from phaul.source.context import Canceller
from phaul.source.convergence import DowntimeJudge
from phaul.source.counterpart import Counterpart
from phaul.source.introduction import criu_text, say_hello
from phaul.source.opening import Opening
from phaul.source.preflight import Preflight
from phaul.source.session import SourceSession
from phaul.subjects.process import Subject, examine
from phaul.transport.base import SourceEnd
from phaul.transport.caller import Caller

__all__ = ["Migration", "Order"]

_ASK_S: Final = 60.0
_LOOK_S: Final = 1.5
_GLANCE_S: Final = 0.2
"""How long the dirty rate is measured at least, in a dry run and before a migration; natively the
rest of the preflight takes about as long as the shorter one."""
_LEAVE_S: Final = 20.0
_PROGRESS_S: Final = 0.25

_logger = logging.getLogger("phaul")


@dataclass(frozen=True)
class Order:
    """What is to be moved where, and how.

    `target` is what the user calls it, `connect` makes the connection.  `directory` is this
    migration's own on the source; its images and logs lie there.  `dry_run` stops at the plan.
    """

    id: str
    pid: int
    target: str
    connect: Callable[[], SourceEnd]
    wishes: Wishes
    directory: Path
    criu: tuple[str, ...] = ("criu",)
    dry_run: bool = False


class Migration:
    """One migration; `run` it once.

    `emit` gets each event as it happens, in the event loop's thread; an error of its own ends the
    migration while it still can.
    """

    def __init__(self, order: Order, emit: EventHandler) -> None:
        self._order = order
        self._tell = emit
        self._host = host_name()
        self._canceller = Canceller()
        self._judge: DowntimeJudge | None = None
        self._max_downtime_s = order.wishes.max_downtime_s
        self._timed_out = False
        self._round: RoundStarted | None = None
        self._expected = 0
        self._channel: MemoryChannel | None = None
        self.plan: Plan | None = None
        self.peer = order.target
        self.findings: tuple[Finding, ...] = ()

    def cancel(self) -> bool:
        """Ask for a cancel, in the event loop's thread; returns whether there will be one."""
        return self._canceller.request()

    @property
    def max_downtime_s(self) -> float:
        """The downtime that is aimed at; may be changed while it runs."""
        return self._max_downtime_s

    @max_downtime_s.setter
    def max_downtime_s(self, seconds: float) -> None:
        self._max_downtime_s = seconds
        if self._judge is not None:
            self._judge.max_downtime_s = seconds

    async def run(self) -> Report | None:
        """Move the process; None after a dry run.

        Raises what is in `errors`, each with its fate: where the process is.
        """
        try:
            report = await self._with_subject()
        except PhaulError as error:
            self._tell_at_end(
                Failed(
                    kind=type(error).__name__,
                    message=str(error),
                    fate=error.fate,
                    exit_code=error.exit_code,
                )
            )
            raise
        if report is not None:
            self._tell_at_end(Finished(report=report))
        return report

    async def _with_subject(self) -> Report | None:
        begun = time.monotonic()
        subject = examine(self._order.pid, self._host)
        error: BaseException | None = None
        report: Report | None = None
        # What is raised inside a task group comes out in a group: so it is carried out by hand.
        async with anyio.create_task_group() as tasks:
            try:
                self._emit(Connecting(id=self._order.id, target=self._order.target))
                async with self._order.connect() as end:
                    report = await self._conversation(end, tasks, subject, begun)
            except BaseException as raised:
                error = raised
            tasks.cancel_scope.cancel()
        if isinstance(error, Cancelled) and self._timed_out:
            limit = self._order.wishes.timeout_s
            late = NotConverged(
                f"the pre-copy was not over within {limit:g} s",
                host=self._host,
                remedy="allow more time (--timeout), or move it then all the same "
                "(--on-timeout cutover)",
                fate=error.fate,
            )
            raise late from error
        if isinstance(error, PhaulError):
            error.fate = error.fate or subject.fate()
        if error is not None:
            raise error
        return report

    async def _conversation(
        self, end: SourceEnd, tasks: TaskGroup, subject: Subject, begun: float
    ) -> Report | None:
        caller = Caller(end.control, self._order.target)
        timeouts = Timeouts()
        counterpart = Counterpart(caller, timeouts, self._order.directory)
        try:
            async with AsyncExitStack() as stack:
                with self._canceller.window():
                    engine = Engine(self._order.criu, self._host)
                    preflight = Preflight(engine, self._order.wishes, subject.pid)
                    facts = await preflight.look_here()
                    await preflight.gather()  # the other host is still being connected to
                    welcome = await say_hello(caller, facts, self._host, self._order.id)
                    peer = self.peer = welcome.facts.host
                    self._emit(_connected(welcome.facts))
                    tasks.start_soon(end.control.stay_alive)
                    if not self._order.dry_run:
                        opening = Opening(end, welcome.token, tasks)
                        await stack.enter_async_context(opening)
                    await preflight.look_there(caller, welcome)
                    await preflight.measure(_LOOK_S if self._order.dry_run else _GLANCE_S)
                    self.findings = preflight.findings
                    self._emit(Checked(findings=self.findings))
                    self.plan = preflight.plan()
                    self._emit(Planned(plan=self.plan))
                    preflight.require_passed()
                if self._order.dry_run:
                    await counterpart.take_leave(_LEAVE_S)
                    return None
                with self._canceller.window():
                    memory = await opening.socket()
                    await caller.call(
                        m.Prepare(
                            pids=preflight.pids,
                            memory_bytes=preflight.memory_bytes,
                            options=preflight.restore_options(),
                            framed=self._order.wishes.compress is not Compress.NONE,
                            keep_images=self._order.wishes.keep_images,
                        ),
                        _ASK_S,
                    )
                self._judge = DowntimeJudge(
                    replace(self._order.wishes, max_downtime_s=self._max_downtime_s),
                    preflight.costs,
                    begun,
                    self._host,
                )
                session = SourceSession(
                    Config(
                        pid=subject.pid,
                        memory_fd=memory.fileno(),
                        work_dir=self._order.directory / "images",
                        criu=self._order.criu,
                        options=preflight.criu_options(),
                        timeouts=timeouts,
                    ),
                    counterpart,
                    counterpart,
                    self._emit,
                    judge=self._judge,
                    canceller=self._canceller,
                    facts=facts,
                    host=self._host,
                    open_channel=self._open_channel,
                )
                tasks.start_soon(self._deadline, begun)
                tasks.start_soon(self._progress, end)
                self._expected = preflight.memory_bytes
                report = await session.migrate()
        except BaseException as error:
            await self._leave_after(error, counterpart, subject)
            raise
        self._tell_at_end(Running(host=peer, pid=counterpart.restored_pid or subject.pid))
        warnings = (*await self._unlock(preflight), *await self._leave(counterpart, peer))
        # Without the memory they are of no use to anybody.
        shutil.rmtree(self._order.directory / "images", ignore_errors=True)
        return msgspec.structs.replace(
            report,
            id=self._order.id,
            source=self._host,
            destination=peer,
            source_criu=str(facts.version),
            destination_criu=criu_text(welcome.facts.criu),
            destination_pid=counterpart.restored_pid,
            started_unix=time.time() - (time.monotonic() - begun),
            max_downtime_s=self._max_downtime_s,
            findings=self.findings,
            plan=self.plan,
            warnings=warnings,
        )

    async def _unlock(self, preflight: Preflight) -> tuple[str, ...]:
        """Take CRIU's network lock away, once it protects nothing any more."""
        if self._order.wishes.tcp is not Tcp.KEEP:
            return ()
        with anyio.CancelScope(shield=True):
            try:
                images = sorted((self._order.directory / "images").glob("*/inventory.img"))
                table = table_name(read_inventory(images[-1]).run_id) if images else ""
                moved = {a for a in preflight.connected_addresses if not a.is_loopback}
                here = local_addresses(moved)
            except (OSError, ImageError) as error:
                return (f"CRIU's network lock may still be there (`nft list tables`): {error}",)
            if here:
                names = ", ".join(sorted(map(str, here)))
                return (
                    f"the connections' address {names} is still on this host, so their packets are "
                    f"locked out: move it, then `nft delete table inet {table}`",
                )
            failed = await remove_table(table) if table else ""
        return (f"nft table inet {table} cannot be removed: {failed}",) if failed else ()

    async def _leave(self, counterpart: Counterpart, peer: str) -> tuple[str, ...]:
        """Say goodbye after the commit; what fails is only a warning."""
        with anyio.CancelScope(shield=True):
            try:
                await counterpart.take_leave(_LEAVE_S)
            except PhaulError as error:
                return (f"{peer} did not say that it has cleaned up: {error.what}",)
        return ()

    async def _leave_after(
        self, error: BaseException, counterpart: Counterpart, subject: Subject
    ) -> None:
        """Have the other side clean up after a failure, and say so in the error's fate."""
        peer = self.peer
        left = f"nothing left on {peer}"
        with anyio.CancelScope(shield=True):
            try:
                await counterpart.take_leave(_LEAVE_S)
            except PeerError:
                left = f"{peer} cleans up by itself when it notices"
            except PhaulError as also:
                left = f"{peer} could not clean up: {also.what}"
        if isinstance(error, PhaulError) and not isinstance(error, OutcomeUnknown):
            error.fate = f"{subject.fate()}; {left}" if counterpart.met else subject.fate()

    async def _deadline(self, begun: float) -> None:
        if self._order.wishes.on_timeout is OnTimeout.CANCEL:
            await anyio.sleep(max(begun + self._order.wishes.timeout_s - time.monotonic(), 0))
            self._timed_out = self._canceller.request()

    async def _progress(self, end: SourceEnd) -> None:
        """Tell from time to time how far the round under way has come."""
        seen: RoundStarted | None = None
        base = 0
        while True:
            await anyio.sleep(_PROGRESS_S)
            counted = self._channel.memory_bytes if self._channel is not None else None
            sent, current = end.memory_sent if counted is None else counted, self._round
            if sent is None or current is None:
                continue
            if current is not seen:
                seen, base = current, sent
                continue
            self._emit(
                RoundProgress(
                    number=current.number, sent_bytes=sent - base, expected_bytes=self._expected
                )
            )

    def _open_channel(self, memory_fd: int, host: str) -> MemoryChannel:
        wishes = self._order.wishes
        self._channel = MemoryChannel(
            memory_fd,
            host,
            bandwidth=wishes.bandwidth,
            compression=Compression(wishes.compress.value),
        )
        return self._channel

    def _emit(self, event: Event) -> None:
        match event:
            case RoundStarted():
                self._round = event
            case RoundFinished(round=done):
                self._round = None
                rate = done.dirty_rate
                self._expected = (
                    done.sent_bytes
                    if rate is None
                    else min(int(rate * done.seconds), self._expected)
                )
            case _:
                pass
        self._tell(event)

    def _tell_at_end(self, event: Event) -> None:
        """Emit when nothing may fail any more."""
        try:
            self._tell(event)
        except Exception:
            _logger.exception("the event handler failed at %s", type(event).__name__)


def _connected(there: m.HostFacts) -> Connected:
    return Connected(
        host=there.host, phaul=there.phaul, criu=criu_text(there.criu), kernel=there.kernel
    )
