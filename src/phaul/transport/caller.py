"""The source's side of the conversation: ask, and get the answer or the error.

Used on the source, from the connection to the end, over any transport.
"""

from pathlib import Path

import anyio

from phaul.errors import ImageError, ProtocolError
from phaul.protocol.agent import Conversation
from phaul.protocol.failure import to_error
from phaul.protocol.frames import MAX_CHUNK
from phaul.protocol.handshake import confirm
from phaul.protocol.messages import Answer, Failed, Hello, Image, Ready, Request, Welcome
from phaul.transport.control import Control

__all__ = ["Caller"]


class Caller:
    """Asks over a control channel, one request at a time.

    A call that is cancelled, or that gets no answer in time, leaves its answer owed: the next call
    takes it first.  So a cancelled migration can still say goodbye.
    """

    def __init__(self, control: Control[Answer], peer: str = "destination") -> None:
        self._control = control
        self._peer = peer
        self._turn = anyio.Lock()
        self.conversation = Conversation()

    async def hello(self, hello: Hello, timeout: float) -> Welcome:
        """Open the conversation; raises VersionMismatch, ConnectFailed, and what `call` raises."""
        welcome = await self.call(hello, timeout)
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the other side does not say who it is", host=self._peer)
        confirm(welcome.version, hello.versions)
        return welcome

    async def restore(self, timeout: float) -> Ready:
        """Restore from what was sent; the root then stands still."""
        ready = await self.call(self.conversation.restore_request(), timeout)
        if not isinstance(ready, Ready):
            raise ProtocolError("the other side does not say what it restored", host=self._peer)
        return ready

    async def call(self, request: Request, timeout: float) -> Answer:
        """Ask and return the answer.

        Raises the error that was raised over there; ConnectionLost if there is no answer in time;
        ProtocolError for a request or an answer out of turn; UsageError for one out of bounds.
        """
        async with self._turn:
            if self.conversation.asked is not None:
                await self._answer(timeout)
            self.conversation.request(request)
            with anyio.CancelScope(shield=True):
                await self._control.send(request)
            answer = await self._answer(timeout)
        if isinstance(answer, Failed):
            raise to_error(answer, self._peer)
        return answer

    async def send_image(self, path: Path) -> None:
        """Send an image file; what is wrong with it over there is the answer to Restore.

        Raises ImageError if it cannot be read; the conversation is of no use then.
        """
        async with self._turn:
            try:
                with path.open("rb") as file:
                    left = path.stat().st_size
                    image = Image(name=path.name, size=left)
                    self.conversation.request(image)
                    await self._control.send(image)
                    while left:
                        data = file.read(min(left, MAX_CHUNK))
                        if not data:
                            raise ImageError(f"{path} became shorter", host="source")
                        self.conversation.chunk(len(data))
                        await self._control.send_chunk(data)
                        left -= len(data)
            except OSError as error:
                raise ImageError(
                    f"{path} cannot be read: {error.strerror}", host="source"
                ) from error

    async def _answer(self, timeout: float) -> Answer:
        answer = await self._control.receive(timeout)
        try:
            self.conversation.answer(answer)
        except ProtocolError as error:
            error.host = error.host or self._peer
            raise
        return answer
