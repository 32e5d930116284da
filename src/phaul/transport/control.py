"""The control channel: messages and image bytes over any byte stream.

Used in every phase, on both hosts.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import anyio
from anyio.abc import ByteStream

from phaul.errors import ConnectionLost, PhaulError, ProtocolError
from phaul.protocol.frames import Decoder, Frame, Kind, header
from phaul.protocol.messages import (
    Alive,
    Answer,
    Message,
    Request,
    decode_answer,
    decode_request,
    encode,
)

__all__ = ["SILENCE_S", "Control", "agent_control", "source_control"]

SILENCE_S: Final = 60.0
"""How long a peer may be silent while it is waited for.  It sends Alive thrice in that time."""

_READ: Final = 1 << 18

T = TypeVar("T", bound=Message)

Explain = Callable[[], Awaitable[PhaulError | None]]
"""Asked when the stream ends: whoever runs it may know why."""


class Control(Generic[T]):
    """One end of the control channel over `stream`, which it owns.

    `peer` names the other host in errors.  An error of the stream leaves it broken; after one of
    the protocol it can still send, to say so.  A `send` that has begun is seen through, also if it
    is cancelled.
    """

    def __init__(
        self,
        stream: ByteStream,
        decode: Callable[[bytes], T],
        peer: str,
        *,
        explain: Explain | None = None,
        silence: float = SILENCE_S,
    ) -> None:
        self._stream = stream
        self._decode = decode
        self._peer = peer
        self._explain = explain
        self._silence = silence
        self._decoder = Decoder()
        self._frames: list[Frame] = []
        self._sending = anyio.Lock()
        self._cause: PhaulError | None = None
        self._deaf = ""
        self.spoke = False
        """Whether the other side has sent a frame yet."""

    async def send(self, message: Message) -> None:
        """Send a message.  Raises UsageError if it is out of bounds, ConnectionLost."""
        await self._send(Kind.CONTROL, encode(message))

    async def send_chunk(self, data: bytes) -> None:
        """Send bytes of an image, MAX_CHUNK at most.  Raises ConnectionLost."""
        await self._send(Kind.RAW, data)

    async def receive(self, timeout: float) -> T:
        """The next message within `timeout` seconds; those of life are taken in silence.

        Raises ConnectionLost at the end of the stream, when nothing came for too long, and when
        only signs of life did; ProtocolError.
        """
        payload = await self._next(Kind.CONTROL, timeout)
        return self._decode_or_break(payload)

    async def receive_chunk(self, timeout: float) -> bytes:
        """The next bytes of an image; raises ConnectionLost, ProtocolError."""
        return await self._next(Kind.RAW, timeout)

    async def stay_alive(self) -> None:
        """Send Alive from time to time, until it is cancelled or the channel is lost."""
        with suppress(ConnectionLost):
            while True:
                await anyio.sleep(self._silence / 3)
                await self.send(Alive())

    async def aclose(self) -> None:
        """Close the stream; may be called again."""
        self._lost("it was closed")
        await self._stream.aclose()

    async def _send(self, kind: Kind, payload: bytes) -> None:
        data = header(kind, len(payload)) + payload
        async with self._sending:
            self._check()
            try:
                # Shielded: half a frame would leave nothing to say goodbye with.
                with anyio.fail_after(self._silence, shield=True):
                    await self._stream.send(data)
            except TimeoutError as error:
                raise self._lost(f"it took nothing for {self._silence:g} s") from error
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise await self._ended() from error

    async def _next(self, kind: Kind, timeout: float) -> bytes:
        try:
            with anyio.fail_after(timeout):
                while True:
                    frame = await self._frame()
                    if frame.kind is Kind.CONTROL and self._is_alive(frame.payload):
                        continue
                    if frame.kind is not kind:
                        raise self._wrong(f"a {frame.kind.name} frame instead of {kind.name}")
                    return frame.payload
        except TimeoutError as error:
            # Not broken: the answer may still come, and whoever asked again would get it.
            raise ConnectionLost(f"no answer within {timeout:g} s", host=self._peer) from error

    async def _frame(self) -> Frame:
        self._check()
        if self._deaf:
            raise ProtocolError(self._deaf, host=self._peer)
        while not self._frames:
            try:
                # Before its first word a person may be typing a password: then only the caller's
                # own limit counts.
                with anyio.fail_after(self._silence if self.spoke else None):
                    data = await self._stream.receive(_READ)
            except TimeoutError as error:
                raise self._lost(f"it was silent for {self._silence:g} s") from error
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise await self._ended() from error
            except anyio.ClosedResourceError as error:
                raise self._lost("the control channel was closed") from error
            try:
                self._frames = self._decoder.feed(data)
            except ProtocolError as error:
                raise self._wrong(error.what, error.remedy) from None
            self.spoke = self.spoke or bool(self._frames)
        return self._frames.pop(0)

    def _is_alive(self, payload: bytes) -> bool:
        # Decoded in full only where a message is wanted: this is the cheap way to tell.
        return len(payload) < 32 and isinstance(self._decode_or_break(payload), Alive)

    def _decode_or_break(self, payload: bytes) -> T:
        try:
            return self._decode(payload)
        except ProtocolError as error:
            raise self._wrong(error.what) from error

    async def _ended(self) -> PhaulError:
        found = await self._explain() if self._explain is not None else None
        if found is None:
            return self._lost("the control channel ended")
        self._cause = self._cause or found
        return self._cause

    def _lost(self, what: str) -> PhaulError:
        lost = ConnectionLost(f"the connection is lost: {what}", host=self._peer)
        self._cause = self._cause or lost
        return self._cause

    def _wrong(self, what: str, remedy: str = "") -> ProtocolError:
        self._deaf = what
        return ProtocolError(what, host=self._peer, remedy=remedy)

    def _check(self) -> None:
        if self._cause is not None:
            raise self._cause


def source_control(
    stream: ByteStream, peer: str, *, explain: Explain | None = None, silence: float = SILENCE_S
) -> Control[Answer]:
    """The source's end: it receives answers."""
    return Control[Answer](stream, decode_answer, peer, explain=explain, silence=silence)


def agent_control(stream: ByteStream, *, silence: float = SILENCE_S) -> Control[Request]:
    """The agent's end: it receives requests."""
    return Control[Request](stream, decode_request, "source", silence=silence)
