"""A request with notifications, step by step: held at a stage, then let go or refused.

Used for the dump (source, cutover), for pre-dumps (source, pre-copy) and the restore (destination,
cutover).  The one place that answers notifications, so that CRIU always gets an answer:

    begin --> [notification: handler called, answered]* --> final answer
                     |
                     +-- until(stage) returns here, unanswered: CRIU waits, `held`
                            release() --> on;   refuse() --> CRIU undoes all, final answer
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from phaul.criu.log import decisive_line, remedy_for
from phaul.criu.rpc import Request, Response, Stage
from phaul.criu.swrk import Swrk
from phaul.errors import CriuError, CriuTimeout, UsageError

__all__ = ["NotifyHandler", "Operation", "directory_fd", "failure"]

NotifyHandler = Callable[[Response], Awaitable[None]]
"""Called with each notification; to return accepts it, to raise refuses it."""

_REFUSED_S: Final = 60.0
"""How long a refused CRIU may take to undo what it did."""


@contextmanager
def directory_fd(path: Path) -> Iterator[int]:
    """A descriptor of a directory, to be named in a request while CRIU works on it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def failure(request: str, response: Response, log_path: Path | None, host: str) -> CriuError:
    """The error for an answer that says no, with the log line that decided."""
    line = decisive_line(log_path) or response.message
    return CriuError(
        f"criu failed the {request} request",
        request=request,
        line=line,
        log_path=str(log_path or ""),
        errno=response.errno,
        host=host,
        remedy=remedy_for(line),
    )


@dataclass(eq=False)
class Operation:
    """One request in flight on `worker`, logging to `log_path`.

    `timeout` is in seconds, for each wait.  After an error the worker is not to be used again.
    """

    worker: Swrk
    request: Request
    log_path: Path
    timeout: float
    handler: NotifyHandler | None = None
    held: Response | None = None

    @property
    def name(self) -> str:
        """The request's name, for messages."""
        return self.request.type.name

    async def begin(self) -> None:
        """Send the request."""
        self.worker.log_path = self.log_path
        await self.worker.send(self.request)

    async def until(self, stage: Stage) -> Response:
        """Go on to the notification `stage`, and return it unanswered: CRIU waits there.

        Raises CriuError if CRIU ends first, CriuTimeout, and whatever the handler raises.
        """
        answer = await self._next(stage)
        if answer.script is None:
            raise (
                self._failed(answer)
                if not answer.success
                else CriuError(
                    f"criu ended the {self.name} request without {stage.value}",
                    request=self.name,
                    log_path=str(self.log_path),
                    host=self.worker.host,
                )
            )
        self.held = answer
        return answer

    async def release(self) -> None:
        """Let CRIU go on from where it is held."""
        self._leave_hold()
        await self.worker.answer_notification(accept=True)

    async def refuse(self) -> Response:
        """Make CRIU give up where it is held, and return its final answer, which says no."""
        self._leave_hold()
        await self.worker.answer_notification(accept=False)
        with anyio.fail_after(_REFUSED_S):
            return await self._final()

    async def finish(self) -> Response:
        """The final answer of a request that succeeded; raises CriuError if it did not."""
        answer = await self._next(None)
        if not answer.success:
            raise self._failed(answer)
        return answer

    def _leave_hold(self) -> None:
        if self.held is None:
            raise UsageError(f"the {self.name} request is not held at any stage")
        self.held = None

    async def _next(self, stage: Stage | None) -> Response:
        """The notification `stage`, or the final answer; all other notifications are answered."""
        with anyio.move_on_after(self.timeout):
            while True:
                answer = await self.worker.receive(self.name)
                if answer.script is None or (stage and answer.stage is stage):
                    return answer
                await self._handle(answer)
        # Not killed here: the worker's `close` lets it thaw what it froze, if it still can.
        raise CriuTimeout(
            f"criu did not answer the {self.name} request within {self.timeout:g} s",
            request=self.name,
            line=decisive_line(self.log_path),
            log_path=str(self.log_path),
            host=self.worker.host,
        )

    async def _handle(self, notification: Response) -> None:
        if self.handler is None:
            await self.worker.answer_notification(accept=True)
            return
        try:
            await self.handler(notification)
        except BaseException:
            # CRIU waits for the answer with the process frozen: it gets one, whatever happened.
            with anyio.move_on_after(_REFUSED_S, shield=True):
                await self.worker.answer_notification(accept=False)
                await self._final()
            raise
        await self.worker.answer_notification(accept=True)

    async def _final(self) -> Response:
        while True:
            answer = await self.worker.receive(self.name)
            if answer.script is None:
                return answer
            await self.worker.answer_notification(accept=False)

    def _failed(self, answer: Response) -> CriuError:
        return failure(self.name, answer, self.log_path, self.worker.host)
