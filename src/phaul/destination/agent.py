"""What `phaul agent` does: one migration's destination, asked over a control channel.

Runs on the destination, from the first word to the last.  The order of the steps is held by
`protocol.agent`; the doing is `DestinationSession`'s; whose the process is, `Custody`'s.  If the
channel is lost before the copy was ready, all is cleaned up; after that the copy is held until
somebody settles it, or the lease is over; one that was let go is seen through.

For a Hello that only wants to settle, it hands on what is asked: see `settling`.
"""

import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup

from phaul.criu.engine import Engine, Examination, Facts
from phaul.criu.facts import host_facts, host_name
from phaul.criu.fitness import privileges
from phaul.criu.log import read_tail
from phaul.criu.workers import examine_anew, unfit
from phaul.destination.incoming import Incoming
from phaul.errors import CriuError, ImageError, PhaulError, UsageError
from phaul.incarnation import Incarnation
from phaul.pages.speed import restore_rate
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation
from phaul.protocol.handshake import negotiate
from phaul.protocol.ownership import DestinationState
from phaul.protocol.preflight import Finding, Where
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd

if TYPE_CHECKING:
    from phaul.destination.cage import Cage
    from phaul.destination.custody import Custody
    from phaul.destination.memory import LazyMemory
    from phaul.destination.session import DestinationSession
    from phaul.destination.settling import Settler

__all__ = ["Agent", "run_agent"]

_MEMORY_S: Final = 30.0
"""The source has opened the memory channel before it says Prepare."""

_DRAIN_S: Final = 1.0

_logger = logging.getLogger("phaul")


class Agent:
    """Answers the requests of one migration; `close` it at the end."""

    def __init__(
        self,
        end: AgentEnd,
        base: Path,
        criu: Sequence[str],
        tasks: TaskGroup,
        examination: Examination | None = None,
    ) -> None:
        self._tasks = tasks
        self._end = end
        self._base = base
        self._engine = Engine(tuple(criu), host_name())
        self._examination = examination
        self._memory: socket.socket | None = None
        self._links: list[socket.socket] = []
        self._settled = Path()
        self._lacks = False
        self._facts: Facts | None = None
        self._incoming: Incoming | None = None
        self._session: DestinationSession | None = None
        self._custody: Custody | None = None
        self._settler: Settler | None = None
        self._said: m.Hello | None = None
        self._lease_s = 0.0
        self._rate = 1
        self._keep_images = self._surveyed = self._told = False
        self.over = anyio.CancelScope()

    async def handle(self, request: m.Request) -> m.Answer:
        """Fulfil a request; what is raised becomes the answer Failed."""
        try:
            return await self._handle(request)
        except CriuError as error:
            # The log goes with the error: here, nothing is left behind.
            error.log_text = error.log_text or read_tail(error.log_path)
            raise

    async def _handle(self, request: m.Request) -> m.Answer:
        match request:
            case m.Hello():
                return await self._hello(request)
            case m.Clock():
                return m.Time(unix_ns=_now_ns())
            case m.Survey():
                return m.Surveyed(findings=await self._survey(request))
            case m.Prepare():
                await self._prepare(request)
            case m.StartRound():
                await self._require_session().start_iteration()
                self._require_custody().begun()
            case m.StopRound():
                session = self._require_session()
                await session.stop_iteration()
                if session.last_images_dir is not None:
                    self._require_custody().written(session.last_images_dir)
            case m.Follow():
                await self._require_session().follow()
                self._require_custody().caged()
            case m.Restore():
                return await self._require_custody().restore()
            case m.Ask():
                return await self._settle(request)
            case m.Attach() if self._settler is not None:
                await self._attach()
            case m.Discard() if self._settler is not None and self._lacks:
                from phaul.destination.remaining import abandon

                await abandon(self._settled)
                # What was let go is known to have been, and to be no more: nothing is owed.
                await self._settler.ask(m.Commit())
            case m.Drain() if self._settler is not None:
                from phaul.destination.remaining import drain

                return await drain(self._settled)
            case m.Bye() if self._settler is None:
                self._told = True
                await self.close()
            case _ if self._settler is not None:
                return await self._settler.ask(request)
            case m.Commit():
                return await self._require_custody().commit()
            case m.Abandon():
                memory = self._require_session().memory
                if memory is not None:
                    await memory.abandon()
            case m.Drain():
                return await self._require_session().drain(_DRAIN_S)
            case m.Discard():
                if self._custody is not None:
                    return await self._custody.discard()
            case _:
                raise UsageError(f"{type(request).__name__} is no request for an agent")
        return m.Done()

    async def image(self, image: m.Image, chunks: AsyncIterator[bytes]) -> None:
        """Write an image of the final dump beside the memory; what is raised is told later."""
        session = self._require_session()
        folder = session.last_images_dir
        if folder is None:
            raise ImageError("an image, but no round was made", host=self._engine.host)
        path = folder / image.name
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123 -- a descriptor
                async for chunk in chunks:
                    file.write(chunk)
        except OSError as error:
            raise ImageError(
                f"{path} cannot be written: {error.strerror}", host=self._engine.host
            ) from error
        if session.memory is not None:
            await session.memory.arrived(path)

    async def hold(self) -> None:
        """The channel is lost: see through what only the source, or the lease, may end."""
        custody = self._custody
        if custody is not None and custody.state is DestinationState.READY:
            _logger.warning(
                "a restored copy is held for %g s in %s", self._lease_s, custody.incoming.path
            )
            await custody.hold(self._lease_s)

    async def close(self) -> None:
        """End what is under way, by whose the process is; may be called again."""
        session, self._session = self._session, None
        incoming, self._incoming = self._incoming, None
        examination, self._examination = self._examination, None
        custody, self._custody = self._custody, None
        settler, self._settler = self._settler, None
        with anyio.CancelScope(shield=True):
            if examination is not None:
                await examination.close()
            try:
                if settler is not None:
                    await settler.close()
                if custody is not None:
                    await custody.end(
                        told=self._told or custody.told.is_set(), keep_images=self._keep_images
                    )
                elif session is not None:
                    await session.close(keep_logs=False)
            finally:
                for sock in (self._memory, *self._links):
                    if sock is not None:
                        sock.close()
                if incoming is not None:
                    incoming.close()

    async def _hello(self, hello: m.Hello) -> m.Welcome:
        version = negotiate(hello.versions)
        self._facts = await self._examine()
        self._said = hello
        if not hello.settle:
            self._incoming = Incoming.make(self._base, hello.migration, self._engine.host)
            self._rate = restore_rate(self._incoming.path)
        facts = await host_facts(self._engine, self._facts, restore_rate=self._rate)
        return m.Welcome(version=version, facts=facts, token=self._end.token)

    async def _examine(self) -> Facts:
        begun, self._examination = self._examination, None
        if begun is None:
            return await examine_anew(self._engine)
        try:
            return await begun.facts()
        except CriuError as error:
            raise unfit(error, self._engine.host) from error
        finally:
            self._tasks.start_soon(begun.close)  # nobody has to wait for this

    async def _survey(self, survey: m.Survey) -> tuple[Finding, ...]:
        # Not before: the source waits for Welcome.
        from phaul.destination.checks import CheckContext, look

        context = CheckContext(self._engine, self._require_incoming().path)
        found = await look(survey.needs, context)
        if self._surveyed:
            return found
        self._surveyed = True
        return (*privileges(Where.DESTINATION), *found)

    async def _prepare(self, prepare: m.Prepare) -> None:
        from phaul.config import Config
        from phaul.destination.cage import Cage
        from phaul.destination.copy import criu_options
        from phaul.destination.session import DestinationSession
        from phaul.pages.channel import MemoryChannel

        self._keep_images = prepare.keep_images
        self._memory = await self._end.accept_memory(_MEMORY_S)
        config = Config(
            memory_fd=self._memory.fileno(),
            work_dir=self._require_incoming().images,
            criu=self._engine.program,
            options=criu_options(prepare.options),
        )
        cage = Cage(self._require_incoming().path.name)
        memory = self._begin_memory(prepare)
        if memory is not None:
            memory.patience_s = prepare.lease_s
        session = DestinationSession(
            config,
            facts=self._facts,
            host=self._engine.host,
            tasks=self._tasks,
            open_channel=partial(MemoryChannel, framed=prepare.framed),
            cage=cage,
            memory=memory,
            expected=prepare.memory_bytes,
        )
        self._session = await session.__aenter__()  # left by `close`
        self._begin(prepare, self._session, cage)

    def _begin_memory(self, prepare: m.Prepare) -> "LazyMemory | None":
        from phaul.destination.gain import worth
        from phaul.destination.memory import LazyMemory
        from phaul.pages.store.index import PAGE

        facts = self._facts
        if prepare.restore == "full" or facts is None or not facts.lazy_pages:
            return None
        if prepare.restore == "auto" and not worth(prepare.memory_bytes // PAGE, self._rate, None):
            # To start a keeper takes as much of a processor as all else that it needs.
            return None
        return LazyMemory.begin(
            self._require_incoming().path,
            self._engine.program,
            self._tasks,
            mode=prepare.restore,
            rate=self._rate,
            wide=facts.version.wide_page_server,
            host=self._engine.host,
        )

    def _begin(self, prepare: m.Prepare, session: "DestinationSession", cage: "Cage") -> None:
        from phaul.destination.custody import Custody
        from phaul.destination.settling import listen
        from phaul.storage.journal import DestinationRecord

        agent, hello = Incarnation.of(os.getpid()), self._said
        if agent is None or hello is None:
            raise UsageError("nobody has said hello", host=self._engine.host)
        record = DestinationRecord(
            id=hello.migration,
            key=prepare.key,
            state=DestinationState.RECEIVING,
            source=hello.host,
            name=prepare.name,
            pids=prepare.pids,
            agent=agent,
            options=prepare.options,
            cage=cage.foreseen(),
        )
        self._lease_s = float(prepare.lease_s)
        custody = Custody(
            self._require_incoming(), record, self._engine, self._tasks, session, cage=cage
        )
        self._custody = custody
        custody.begin()
        listen(custody, self._tasks)
        self._tasks.start_soon(self._when_settled, custody)

    async def _when_settled(self, custody: "Custody") -> None:
        # By another connection: then this one, which may be dead, is not waited for any more.
        await custody.told.wait()
        self.over.cancel()

    async def _settle(self, ask: m.Ask) -> m.Answer:
        from phaul.destination.settling import find

        if self._settler is None:
            if self._said is None or not self._said.settle:
                raise UsageError("this is a migration of its own", host=self._engine.host)
            self._settler = await find(self._base, ask, self._engine, self._tasks)
        answer = await self._settler.ask(ask)
        if isinstance(answer, m.Standing) and answer.path:
            from phaul.destination.remaining import with_memory

            self._settled = Path(answer.path)
            answer = await with_memory(answer, self._settled)
            self._lacks = bool(answer.lacking or answer.lost)
        return answer

    async def _attach(self) -> None:
        """Hand this connection's memory channel to the keeper of what is settled."""
        from phaul.destination.remaining import bring_link

        self._links.append(await self._end.accept_memory(_MEMORY_S))
        await bring_link(self._settled, self._links[-1].fileno(), self._engine.host)

    def _require_session(self) -> "DestinationSession":
        if self._session is None:
            raise UsageError("nothing is prepared", host=self._engine.host)
        return self._session

    def _require_custody(self) -> "Custody":
        if self._custody is None:
            raise UsageError("nothing is prepared", host=self._engine.host)
        return self._custody

    def _require_incoming(self) -> Incoming:
        if self._incoming is None:
            raise UsageError("nobody has said hello", host=self._engine.host)
        return self._incoming


async def run_agent(
    end: AgentEnd,
    base: Path,
    criu: Sequence[str] = ("criu",),
    examination: Examination | None = None,
) -> int:
    """Be the agent of one migration over `end`; returns the exit status.

    `examination` is one that was begun before, if any; it is closed here.
    """
    failed: PhaulError | None = None
    async with end, anyio.create_task_group() as tasks:
        agent = Agent(end, base, criu, tasks, examination)
        try:
            with agent.over:
                await serve(end.control, agent, Conversation(), host_name())
        except PhaulError as error:
            failed = error
        finally:
            # Before the channels are closed: who waits for their end then finds all cleaned up.
            with anyio.CancelScope(shield=True):
                try:
                    await agent.hold()
                finally:
                    await agent.close()
        tasks.cancel_scope.cancel()
    if failed is not None:
        _logger.warning("%s", failed)
        return failed.exit_code
    return 0


def _now_ns() -> int:
    return time.time_ns()
