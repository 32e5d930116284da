"""The source's end of the TLS transport.

Used on the source, from the connection to the end.
"""

import socket
from typing import Final, Self

import anyio
import anyio.to_thread

from phaul.errors import ConnectionLost, PhaulError, UsageError
from phaul.protocol.messages import Answer
from phaul.transport.control import SILENCE_S, Control, source_control
from phaul.transport.end import Closing
from phaul.transport.splice import require_token
from phaul.transport.tls.certificate import Identity
from phaul.transport.tls.dial import open_channel
from phaul.transport.tls.greeting import Greeting, Purpose
from phaul.transport.tls.pump import Pump
from phaul.transport.tls.stream import TlsStream
from phaul.transport.tls.target import KnownHost

__all__ = ["CONNECT_S", "TlsSource"]

CONNECT_S: Final = 15.0
"""How long a connection may take until the other side has said yes, in seconds."""


class TlsSource(Closing):
    """A SourceEnd over TLS; entering it connects.

    Entering raises ConnectFailed in its many kinds, and StateError.
    """

    control: Control[Answer]

    def __init__(
        self,
        known: KnownHost,
        identity: Identity,
        *,
        connect_timeout: float = CONNECT_S,
        silence: float = SILENCE_S,
    ) -> None:
        self._known = known
        self._identity = identity
        self._timeout = connect_timeout
        self._silence = silence
        self._stream: TlsStream | None = None
        self._pumps: list[Pump] = []

    async def __aenter__(self) -> Self:
        stream = await self._open(Greeting(Purpose.CONTROL))
        self._stream = stream
        self.control = source_control(
            stream, str(self._known), explain=self._explain, silence=self._silence
        )
        return self

    @property
    def memory_sent(self) -> int | None:
        """The bytes of memory that TLS has taken so far; see SourceEnd."""
        return sum(pump.sent for pump in self._pumps) if self._pumps else None

    @property
    def memory_fault(self) -> str:
        """What broke a memory channel; empty if nothing did."""
        return next((pump.fault for pump in self._pumps if pump.fault), "")

    async def open_memory(self, token: str) -> socket.socket:
        """Open the memory channel; see SourceEnd.  Raises UsageError, ConnectFailed."""
        require_token(token)
        if self._stream is None:
            raise UsageError("the connection is not open")
        stream = await self._open(Greeting(Purpose.MEMORY, token))
        near, far = socket.socketpair()
        pump = Pump(stream.detach(), far)
        self._pumps.append(pump)
        pump.start()
        return near

    async def aclose(self) -> None:
        """Close the channels, and wait for what moves the memory.  May be called again.

        The memory's socket stays the caller's, but nothing is behind it any more.
        """
        with anyio.CancelScope(shield=True):
            for pump in self._pumps:
                await anyio.to_thread.run_sync(pump.close)
            if self._stream is not None:
                self._stream = None
                await self.control.aclose()

    async def _open(self, greeting: Greeting) -> TlsStream:
        return await open_channel(self._known, self._identity, greeting, self._timeout)

    async def _explain(self) -> PhaulError | None:
        """Why the control channel ended."""
        fault = self._stream.fault if self._stream is not None else ""
        what = fault or "phaul over there ended"
        return ConnectionLost(f"the connection is lost: {what}", host=str(self._known))
