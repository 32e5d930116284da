"""What the ends of the transports have in common.

Used on both hosts, from the connection to the end.
"""

import socket
from types import TracebackType
from typing import Self

from phaul.protocol.messages import Request
from phaul.transport.control import Control
from phaul.transport.memory import MemoryDoor

__all__ = ["Closing", "DoorAgent"]


class Closing:
    """An async context manager whose exit is `aclose`; see SourceEnd for `network`."""

    network: bool = True

    async def aclose(self) -> None:
        """Close what is this end's."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class DoorAgent(Closing):
    """An AgentEnd over a control channel, which it owns; the memory comes by a MemoryDoor."""

    def __init__(self, control: Control[Request]) -> None:
        self.control = control
        self._door = MemoryDoor()
        self.token = self._door.token

    async def accept_memory(self, timeout: float) -> socket.socket:
        """Wait for the memory channel, once; raises ConnectionLost."""
        taken = await self._door.accept(timeout)
        self._door.close()
        return taken

    async def aclose(self) -> None:
        """Close the control channel, and the door; may be called again."""
        self._door.close()
        await self.control.aclose()
