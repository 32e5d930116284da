"""Both ends on one machine, joined by socket pairs: for tests and for embedding.

Used on a machine that is source and destination at once.
"""

import secrets
import socket

import anyio

from phaul.errors import ConnectFailed, ConnectionLost
from phaul.protocol.messages import Answer, Request
from phaul.transport.control import SILENCE_S, Control, agent_control, source_control
from phaul.transport.descriptors import DescriptorStream
from phaul.transport.end import Closing

__all__ = ["LocalAgent", "LocalSource", "local_ends"]


class LocalAgent(Closing):
    """The agent's end."""

    def __init__(self, control: Control[Request]) -> None:
        self.control = control
        self.token = secrets.token_hex(16)
        self._memory: socket.socket | None = None
        self._came = anyio.Event()

    async def accept_memory(self, timeout: float) -> socket.socket:
        """Wait for the memory channel; raises ConnectionLost."""
        with anyio.move_on_after(timeout):
            await self._came.wait()
        if self._memory is None:
            raise ConnectionLost(f"no memory channel within {timeout:g} s", host="source")
        taken, self._memory = self._memory, None
        return taken

    async def aclose(self) -> None:
        """Close the control channel, and a memory channel that nobody took."""
        await self.control.aclose()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def offer(self, memory: socket.socket) -> bool:
        """Take a memory channel, once; returns whether it was taken."""
        if self._came.is_set():
            return False
        self._memory = memory
        self._came.set()
        return True


class LocalSource(Closing):
    """The source's end."""

    def __init__(self, control: Control[Answer], agent: LocalAgent) -> None:
        self.control = control
        self._agent = agent

    @property
    def memory_sent(self) -> int | None:
        """Nobody stands between CRIU and the agent, so nobody counts."""
        return None

    async def open_memory(self, token: str) -> socket.socket:
        """Open the memory channel; raises ConnectFailed if the token is wrong or was used."""
        near, far = socket.socketpair()
        if not secrets.compare_digest(token, self._agent.token) or not self._agent.offer(far):
            near.close()
            far.close()
            raise ConnectFailed("the memory channel's token is wrong, or was used")
        return near

    async def aclose(self) -> None:
        """Close the control channel."""
        await self.control.aclose()


def local_ends(*, silence: float = SILENCE_S) -> tuple[LocalSource, LocalAgent]:
    """Two joined ends, for two tasks of one event loop."""
    near, far = socket.socketpair()
    agent = LocalAgent(agent_control(DescriptorStream.from_socket(far), silence=silence))
    control = source_control(DescriptorStream.from_socket(near), "destination", silence=silence)
    return LocalSource(control, agent), agent
