"""Both ends of a migration that commits as the library of 2017 did, for `bench.cutover`.

The copy runs as soon as it is restored, and what the source returns from is `post-dump`.  All else
is phaul's own.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from phaul.config import Timeouts
from phaul.criu.engine import Facts
from phaul.criu.facts import host_name
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.destination.agent import Agent
from phaul.destination.copy import criu_options
from phaul.errors import UsageError
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation
from phaul.report import Downtime, Round, Way
from phaul.source.context import Context
from phaul.source.cutover import Cutover
from phaul.source.ownership import Ownership
from phaul.source.session import SourceSession
from phaul.subjects.process import Subject
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd

if TYPE_CHECKING:
    from phaul.destination.cage import Cage
    from phaul.destination.session import DestinationSession

__all__ = ["AsTheOriginal", "OriginalSession"]

_LOG = "restore.log"


class Nothing(Ownership):
    """No journal and no second lock."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, None, second_lock=False)

    async def lock(self) -> None:
        """Trust CRIU."""
        self._owner.lock()

    def decide(self) -> None:
        """The copy runs already: now there is time to look at what will be killed."""
        self._take()
        super().decide()


class OriginalSession(SourceSession):
    """The source, which kills its tree when the copy runs."""

    def _cutover(self, context: Context, facts: Facts, way: Way) -> Cutover:
        return Cutover(context, Nothing(context.subject), tracked=way is Way.PRE_COPY)

    async def _cut_over(
        self, stack: AsyncExitStack, context: Context, cutover: Cutover
    ) -> tuple[Round, Downtime]:
        try:
            await cutover.start()
            release = await self._local.dump_copy_restore(cutover)
            cutover.decide()
        except BaseException as error:
            await cutover.roll_back(error)
            raise
        done = await cutover.commit(None)
        assert release is not None
        await release()  # nothing but the end of the conversation
        return done


class AsTheOriginal(Agent):
    """The agent, which lets the copy run and says so."""

    @classmethod
    async def run(cls, end: AgentEnd, base: Path) -> int:
        """Be the agent of one migration."""
        async with end, anyio.create_task_group() as tasks:
            agent = cls(end, base, ("criu",), tasks)
            try:
                await serve(end.control, agent, Conversation(), host_name())
            finally:
                with anyio.CancelScope(shield=True):
                    await agent.close()
            tasks.cancel_scope.cancel()
        return 0

    def _begin(self, prepare: m.Prepare, session: "DestinationSession", cage: "Cage") -> None:
        self._options = criu_options(prepare.options)
        session._cage = None

    async def _handle(self, request: m.Request) -> m.Answer:
        match request:
            case m.StartRound():
                await self._require_session().start_iteration()
                return m.Done()
            case m.StopRound():
                await self._require_session().stop_iteration()
                return m.Done()
            case m.Restore():
                return await self._restore()
            case m.Commit():
                return m.Running()
        return await super()._handle(request)

    async def _restore(self) -> m.Ready:
        session = self._require_session()
        images = session.last_images_dir
        if images is None:
            raise UsageError("nothing was received")
        with directory_fd(images) as descriptor:
            request = Request(
                RequestType.RESTORE,
                options=self._options,
                images_dir_fd=descriptor,
                notify=True,
                log_file=_LOG,
                log_level=2,
            )
            worker = session._workers.take()
            operation = Operation(worker, request, images / _LOG, Timeouts().restore)
            await operation.begin()
            held = await operation.until(Stage.POST_RESTORE)
            await operation.release()
            await operation.finish()
        self._tasks.start_soon(worker.close)
        assert held.pid is not None
        return m.Ready(pid=held.pid, durable=False)
