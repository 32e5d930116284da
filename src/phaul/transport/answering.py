"""The agent's side of the conversation: take requests in their order, answer each.

Used on the destination, from the first word to the last, over any transport.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final, Protocol

from phaul.errors import ConnectionLost, PeerError, ProtocolError
from phaul.protocol.agent import Conversation, State
from phaul.protocol.failure import from_error
from phaul.protocol.messages import Answer, Image, Request, Restore
from phaul.transport.beside import beside
from phaul.transport.control import Control

__all__ = ["Handler", "serve"]


_FIRST_S: Final = 300.0
"""The source says hello as soon as the connection stands; who never does is not waited for."""


class Handler(Protocol):
    """What the agent does; it is called only with requests whose turn it is."""

    async def handle(self, request: Request) -> Answer:
        """Fulfil the request; what is raised becomes the answer Failed."""

    async def image(self, image: Image, chunks: AsyncIterator[bytes]) -> None:
        """Write an image; what is raised becomes the answer to Restore."""


async def serve(
    control: Control[Request], handler: Handler, conversation: Conversation, host: str = ""
) -> None:
    """Serve until Bye is answered.

    Raises ConnectionLost, ProtocolError: then `conversation.duty` says what is owed.  `host` stands
    in answers that name no host.
    """
    async with beside() as tasks:
        tasks.start_soon(control.stay_alive)
        await _serve(control, handler, conversation, host)


async def _serve(
    control: Control[Request], handler: Handler, conversation: Conversation, host: str
) -> None:
    spoiled: Exception | None = None
    while conversation.state is not State.ENDED:
        try:
            first = conversation.state is State.NEW
            request = await control.receive(_FIRST_S if first else math.inf)
            conversation.request(request)
            if isinstance(request, Image):
                spoiled = await _image(control, handler, conversation, request) or spoiled
                continue
        except ProtocolError as error:
            with suppress(ConnectionLost):
                await control.send(from_error(error, host))
            raise
        answer: Answer
        try:
            if isinstance(request, Restore) and spoiled is not None:
                raise spoiled
            answer = await handler.handle(request)
        except Exception as error:
            answer = from_error(error, host)
        conversation.answer(answer)
        await control.send(answer)


async def _image(
    control: Control[Request], handler: Handler, conversation: Conversation, image: Image
) -> Exception | None:
    """Let the handler take an image; returns what it raised."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        while conversation.image_left:
            data = await control.receive_chunk(math.inf)
            conversation.chunk(len(data))
            yield data

    stream = chunks()
    failed: Exception | None = None
    try:
        await handler.image(image, stream)
    except PeerError:
        raise
    except Exception as error:
        failed = error
    finally:
        await stream.aclose()
    # What it did not take has still to pass, before the next request can be read.
    async for _ in chunks():
        pass
    return failed
