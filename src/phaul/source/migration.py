"""One migration as the command makes it: connect, preflight, plan, rounds, cutover, leave.

Runs on the source, from the first word to the last.  The moving itself is `SourceSession`'s; here
stands what comes before and after it, and what the two hosts say to each other.

    connect ---> hello ---> preflight ---> plan ---> memory channel, Prepare ---> SourceSession
       |           |            |           |                                        |
       +-----------+------------+-----------+---- cancel, or an error -------------->+
                                                                                     v
                                                    Discard, Bye: nothing is left over there
"""

import secrets
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
from phaul.errors import (
    Cancelled,
    NotConverged,
    OutcomeUnknown,
    PhaulError,
)
from phaul.pages.channel import MemoryChannel
from phaul.pages.frames import Compression
from phaul.plan import Compress, OnTimeout, Plan, Tcp, Wishes
from phaul.protocol import messages as m
from phaul.protocol.preflight import Finding
from phaul.report import (
    Checked,
    Connected,
    Connecting,
    Failed,
    Finished,
    Planned,
    Report,
    Running,
)
from phaul.report.events import EventHandler
from phaul.source.context import Canceller
from phaul.source.convergence import DowntimeJudge
from phaul.source.counterpart import Counterpart
from phaul.source.draining import follow_drain
from phaul.source.following import Following
from phaul.source.hugepages import HugePages
from phaul.source.introduction import say_hello
from phaul.source.opening import Opening
from phaul.source.owed import Owing
from phaul.source.ownership import Ledger
from phaul.source.parting import Parting
from phaul.source.preflight import Preflight
from phaul.source.session import SourceSession
from phaul.source.slowing import Slowing
from phaul.source.telling import Telling
from phaul.source.unlocking import unlock
from phaul.storage.entry import bounded
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.process import Subject, examine
from phaul.transport.base import SourceEnd
from phaul.transport.beside import beside
from phaul.transport.caller import Caller

__all__ = ["Migration", "Order"]

_ASK_S: Final = 60.0
_LOOK_S: Final = 1.5
_GLANCE_S: Final = 0.2
"""How long the dirty rate is measured at least, in a dry run and before a migration; natively the
rest of the preflight takes about as long as the shorter one."""
_LEAVE_S: Final = 20.0


@dataclass(frozen=True)
class Order:
    """What is to be moved where, and how.

    `target` is what the user calls it, `connect` makes the connection.  `directory` is this
    migration's own on the source; its images, logs and journal lie there.  `dry_run` stops at the
    plan.  A copy that is ready is held over there for `lease_s` without a word from here; a lost
    connection is tried to be made again for `patience_s`.
    """

    id: str
    pid: int
    target: str
    connect: Callable[[], SourceEnd]
    wishes: Wishes
    directory: Path
    criu: tuple[str, ...] = ("criu",)
    dry_run: bool = False
    lease_s: int = 600
    patience_s: float = 20.0


class Migration:
    """One migration; `run` it once.

    `emit` gets each event as it happens, in the event loop's thread; an error of its own ends the
    migration while it still can.
    """

    def __init__(self, order: Order, emit: EventHandler) -> None:
        self._order = order
        self._telling = Telling(emit)
        self._host = host_name()
        self._network = True
        self._canceller = Canceller()
        self._judge: DowntimeJudge | None = None
        self._max_downtime_s = order.wishes.max_downtime_s
        self._timed_out = False
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
            self._telling.at_end(
                Failed(
                    kind=type(error).__name__,
                    message=str(error),
                    fate=error.fate,
                    exit_code=error.exit_code,
                )
            )
            raise
        if report is not None:
            self._telling.at_end(Finished(report=report))
        return report

    async def _with_subject(self) -> Report | None:
        begun = time.monotonic()
        subject = examine(self._order.pid, self._host)
        try:
            async with beside() as tasks:
                self._telling.emit(Connecting(id=self._order.id, target=self._order.target))
                async with self._order.connect() as end:
                    report = await self._conversation(end, tasks, subject, begun)
        except PhaulError as error:
            if isinstance(error, Cancelled) and self._timed_out:
                limit = self._order.wishes.timeout_s
                raise NotConverged(
                    f"the pre-copy was not over within {limit:g} s",
                    host=self._host,
                    remedy="allow more time (--timeout), or move it then all the same "
                    "(--on-timeout cutover)",
                    fate=error.fate,
                ) from error
            if isinstance(error, OutcomeUnknown):
                resolve = f"`phaul resolve {self._order.id}` looks at both hosts, --yes settles it"
                error.remedy = f"{error.remedy}\n{resolve}" if error.remedy else resolve
            error.fate = error.fate or subject.fate()
            raise
        return report

    async def _conversation(
        self, end: SourceEnd, tasks: TaskGroup, subject: Subject, begun: float
    ) -> Report | None:
        caller = Caller(end.control, self._order.target)
        timeouts = Timeouts()
        ledger = Ledger(
            Journal(self._order.directory, SourceRecord), self._order.id, secrets.token_hex(16)
        )
        parting = Parting(self._order, subject, ledger)
        counterpart = Counterpart(caller, timeouts, self._order.directory, parting.release)
        try:
            async with AsyncExitStack() as stack:
                with self._canceller.window():
                    engine = Engine(self._order.criu, self._host)
                    preflight = Preflight(engine, self._order.wishes, subject.pid)
                    facts = await preflight.look_here()
                    await preflight.gather()  # the other host is still being connected to
                    welcome = await say_hello(caller, preflight.here, self._order.id)
                    peer = self.peer = parting.peer = welcome.facts.host
                    self._telling.emit(_connected(welcome.facts))
                    tasks.start_soon(end.control.stay_alive)
                    if not self._order.dry_run:
                        opening = Opening(end, welcome.token, tasks)
                        await stack.enter_async_context(opening)
                    await preflight.look_there(caller, welcome)
                    await preflight.measure(_LOOK_S if self._order.dry_run else _GLANCE_S)
                    self.findings = preflight.findings
                    self._telling.emit(Checked(findings=self.findings))
                    self.plan = preflight.plan()
                    self._telling.emit(Planned(plan=self.plan))
                    preflight.require_passed()
                self._network = end.network
                if self._order.dry_run:
                    await counterpart.take_leave(_LEAVE_S)
                    return None
                with self._canceller.window():
                    memory = await opening.socket()
                    parting.begin()
                    await caller.call(
                        m.Prepare(
                            key=ledger.key,
                            name=bounded(subject.name, 256),
                            lease_s=self._order.lease_s,
                            pids=preflight.pids,
                            # Of what follows later none comes by rounds.
                            memory_bytes=0 if preflight.leaves_all else preflight.memory_bytes,
                            options=preflight.restore_options(),
                            framed=self._compress is not Compress.NONE,
                            keep_images=self._order.wishes.keep_images,
                            restore=preflight.restoring.value,
                        ),
                        _ASK_S,
                    )
                self._judge = DowntimeJudge(
                    replace(self._order.wishes, max_downtime_s=self._max_downtime_s),
                    preflight.costs,
                    begun,
                    self._host,
                    can_split=preflight.huge is not None and preflight.huge.can_split,
                )
                owing = Owing(self._order.directory)
                session = SourceSession(
                    Config(
                        pid=subject.pid,
                        memory_fd=memory.fileno(),
                        work_dir=self._order.directory / "images",
                        criu=self._order.criu,
                        options=preflight.criu_options(),
                        timeouts=timeouts,
                        second_lock=True,
                    ),
                    counterpart,
                    counterpart,
                    self._telling.emit,
                    judge=self._judge,
                    canceller=self._canceller,
                    facts=facts,
                    host=self._host,
                    open_channel=self._open_channel,
                    ledger=ledger,
                    slowing=self._slowing(subject, owing),
                    huge=self._huge(subject, preflight, owing),
                    follow=counterpart.follow if self._order.wishes.may_leave else None,
                    post_copy=preflight.leaves_all,
                )
                stack.push_async_callback(session.close)
                tasks.start_soon(self._deadline, begun)
                tasks.start_soon(self._telling.progress, end)
                self._telling.expected = preflight.memory_bytes
                report = await session.migrate()
                self._telling.at_end(
                    Running(host=peer, pid=counterpart.restored_pid or subject.pid)
                )
                report = await self._follow(session, report, counterpart, ledger, parting)
        except BaseException as error:
            await parting.after(error, counterpart)
            raise
        images = self._order.directory / "images"
        warnings: tuple[str, ...] = ()
        if self._order.wishes.tcp is Tcp.KEEP:
            warnings = await unlock(images, preflight.connected_addresses)
        try:
            drained = await follow_drain(counterpart, self._telling, peer)
        finally:
            warnings += await parting.after_commit(counterpart)
        shutil.rmtree(images, ignore_errors=True)  # without the memory they are of no use
        return msgspec.structs.replace(
            report,
            id=self._order.id,
            source=self._host,
            destination=peer,
            source_criu=str(facts.version),
            destination_criu=str(welcome.facts.criu),
            destination_pid=counterpart.restored_pid,
            started_unix=time.time() - (time.monotonic() - begun),
            max_downtime_s=self._max_downtime_s,
            findings=self.findings,
            plan=self.plan,
            lazy=counterpart.lazy,
            drained=drained,
            warnings=warnings,
        )

    async def _follow(
        self,
        session: SourceSession,
        report: Report,
        counterpart: Counterpart,
        ledger: Ledger,
        parting: Parting,
    ) -> Report:
        """Give the memory that was left here, if any was; raises OutcomeUnknown if it is lost."""
        if session.post is None:
            return report
        following = Following(
            session.post, counterpart, self._telling, self._order, ledger.key, parting.peer
        )
        try:
            followed = await following.run()
        except OutcomeUnknown as error:
            parting.lost(error)
            shutil.rmtree(self._order.directory / "images", ignore_errors=True)
            raise
        return msgspec.structs.replace(report, followed=followed)

    async def _deadline(self, begun: float) -> None:
        if self._order.wishes.on_timeout not in (OnTimeout.CUTOVER, OnTimeout.POSTCOPY):
            await anyio.sleep(max(begun + self._order.wishes.timeout_s - time.monotonic(), 0))
            self._timed_out = self._canceller.request()

    def _slowing(self, subject: Subject, owing: Owing) -> Slowing | None:
        """What slows the process down, None where nobody wants that."""
        if self._order.wishes.on_timeout is not OnTimeout.THROTTLE:
            return None
        return Slowing(subject.pid, self._order.id, owing, self._telling.emit)

    def _huge(self, subject: Subject, preflight: Preflight, owing: Owing) -> HugePages | None:
        """What looks at huge pages, or splits them; None where there is nothing to be done."""
        found = preflight.huge
        if found is None or preflight.leaves_all or not (found.splits or found.counts):
            return None
        return HugePages(
            subject.pid,
            self._telling.emit,
            owing=owing if found.splits else None,
            blocks=found.blocks,
            can_split=found.can_split,
        )

    @property
    def _compress(self) -> Compress:
        """As the user said; AUTO is not worth its frames where there is no network."""
        wanted = self._order.wishes.compress
        if wanted is Compress.AUTO and not self._network:
            return Compress.NONE
        return wanted

    def _open_channel(self, memory_fd: int, host: str) -> MemoryChannel:
        wishes = self._order.wishes
        channel = self._telling.channel = MemoryChannel(
            memory_fd,
            host,
            bandwidth=wishes.bandwidth,
            compression=Compression(self._compress.value),
            count=not self._network,
        )
        return channel


def _connected(there: m.HostFacts) -> Connected:
    return Connected(host=there.host, phaul=there.phaul, criu=str(there.criu), kernel=there.kernel)
