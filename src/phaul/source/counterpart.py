"""The agent on the other host, as the source's session wants it: its Remote and its Local.

Runs on the source, from the first round to the commit.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phaul.config import Timeouts
from phaul.errors import CriuError, PhaulError, ProtocolError
from phaul.protocol import messages as m
from phaul.protocol.agent import State
from phaul.source.cutover import Cutover, Release
from phaul.transport.beside import beside
from phaul.transport.caller import Caller

__all__ = ["Counterpart"]


Settle = Callable[[], Awaitable[int | None]]
"""Settles the migration over another connection; returns the copy's PID, raises if it cannot."""


class Counterpart:
    """Asks the agent for what a migration needs; `restored_pid` is the tree's root over there.

    `settle` is what is tried when Commit finds no answer, and `settled` says that
    it was done so.

    A log that comes with an error of CRIU's is written below `log_dir`, and the error then names
    that file: over there, nothing is left.
    """

    def __init__(
        self,
        caller: Caller,
        timeouts: Timeouts,
        log_dir: Path | None = None,
        settle: Settle | None = None,
    ) -> None:
        self._caller = caller
        self._settle = settle
        self.settled = self.asked_to_restore = False
        self._timeouts = timeouts
        self._log_dir = log_dir
        self.restored_pid: int | None = None
        self.lazy = False
        """Whether the memory comes when the process runs."""

    @property
    def met(self) -> bool:
        """Whether the agent has said hello: only then can there be anything over there."""
        return self._caller.conversation.state is not State.NEW

    async def start_iteration(self) -> None:
        """Have a round received; see Remote."""
        number = self._caller.conversation.rounds
        with self._logs():
            await self._caller.call(m.StartRound(number=number), self._timeouts.page_server)

    async def stop_iteration(self) -> None:
        """Wait until the round is written over there; see Remote."""
        number = self._caller.conversation.rounds
        with self._logs():
            await self._caller.call(m.StopRound(number=number), self._timeouts.page_server)

    async def follow(self) -> None:
        """Tell that memory follows; see `context.Follow`."""
        with self._logs():
            await self._caller.call(m.Follow(), self._timeouts.page_server)

    async def dump_copy_restore(self, cutover: Cutover) -> Release:
        """Dump, send the images, have them restored; see Local."""
        async with beside(wait=True) as tasks:
            held = await cutover.dump(tasks)
            for image in held.images():
                await self._caller.send_image(image)
            await cutover.locked()
        with self._logs():
            self.asked_to_restore = True
            ready = await self._caller.restore(self._timeouts.restore)
        self.restored_pid = ready.pid
        self.lazy = ready.lazy
        return self._release

    async def _release(self) -> None:
        try:
            with self._logs():
                await self._caller.call(m.Commit(), self._timeouts.finish)
        except PhaulError as error:
            if self._settle is None:
                raise
            # The link may be lost, and come back; or the copy ended, and is restored once more.
            try:
                self.restored_pid = await self._settle() or self.restored_pid
            except PhaulError as also:
                error.add_note(f"then: {also}")
                raise error from also
            self.settled = True

    async def drain(self, timeout: float) -> m.Draining:
        """How far the memory of the running process has come; answered within about a second."""
        answer = await self._caller.call(m.Drain(), timeout)
        if not isinstance(answer, m.Draining):
            raise ProtocolError("the other side does not say how far its memory has come")
        return answer

    async def abandon(self, timeout: float) -> None:
        """The memory that follows is lost: have the copy ended that waits for it."""
        await self._caller.call(m.Abandon(), timeout)

    @contextmanager
    def _logs(self) -> Iterator[None]:
        try:
            yield
        except CriuError as error:
            if error.log_text and self._log_dir is not None:
                path = self._log_dir / _log_name(error)
                with suppress(OSError):
                    path.write_text(error.log_text)
                    error.log_path = str(path)
            raise

    async def take_leave(self, timeout: float) -> None:
        """Have the agent clean up, whatever was under way; raises PeerError if it does not."""
        if self.settled:
            return
        conversation = self._caller.conversation
        if conversation.state not in {State.NEW, State.RUNNING, State.DOUBTFUL, State.ENDED}:
            await self._caller.call(m.Discard(), timeout)
        if conversation.state not in {State.NEW, State.ENDED}:
            await self._caller.call(m.Bye(), timeout)


def _log_name(error: CriuError) -> str:
    # The path is the other host's word: of its last part only plain letters are taken.
    name = Path(error.log_path).name
    plain = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-.")).lstrip(".")
    return f"there-{plain or 'criu.log'}"
