"""The agent's end of the ssh transport: control over standard input and output.

Used on the destination, by `phaul agent`.
"""

import socket
from types import TracebackType
from typing import Self

from phaul.transport.control import SILENCE_S, agent_control
from phaul.transport.descriptors import DescriptorStream, take_stdio
from phaul.transport.memory import MemoryDoor

__all__ = ["StdioAgent"]


class StdioAgent:
    """An AgentEnd over `descriptors`, which are its own from now on.

    Without, it takes the process's standard input and output, and prints then go to standard error.
    """

    def __init__(
        self, descriptors: tuple[int, int] | None = None, *, silence: float = SILENCE_S
    ) -> None:
        reader, writer = descriptors or take_stdio()
        self.control = agent_control(DescriptorStream(reader, writer), silence=silence)
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
