"""What every transport offers: one interface for each end.

Used from the connection to the end.
"""

import socket
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from phaul.protocol.messages import Answer, Request
from phaul.transport.control import Control

__all__ = ["AgentEnd", "Dialling", "SourceEnd"]


class SourceEnd(Protocol):
    """The source's end; an async context manager, whose exit is `aclose`."""

    @property
    def control(self) -> Control[Answer]:
        """The control channel."""

    @property
    def network(self) -> bool:
        """Whether the memory crosses a network, on which to send less of it may be faster."""

    @property
    def memory_sent(self) -> int | None:
        """About how many bytes of memory have left so far, for the progress; None if unknown."""

    async def open_memory(self, token: str) -> socket.socket:
        """Open the memory channel with the token of Welcome; the socket is the caller's.

        It is a blocking unix socket.  Raises ConnectFailed, ConnectionLost.
        """

    async def aclose(self) -> None:
        """Close the channels, and end and reap all that runs for them.  May be called again."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Dialling(Protocol):
    """A source's end that can begin to connect before there is an event loop to enter it in."""

    def dial(self) -> None:
        """Begin to connect; who then does not enter has to `hang_up`.  Raises ConnectFailed."""

    def hang_up(self) -> None:
        """Undo `dial`, unless this was entered since: then leaving it does."""


class AgentEnd(Protocol):
    """The agent's end; an async context manager, whose exit is `aclose`."""

    token: str
    """What Welcome must say, so that the source can open the memory channel."""

    @property
    def control(self) -> Control[Request]:
        """The control channel."""

    async def accept_memory(self, timeout: float) -> socket.socket:
        """Wait for the memory channel; the socket is the caller's.  Raises ConnectionLost."""

    async def aclose(self) -> None:
        """Close the channels.  May be called again."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
