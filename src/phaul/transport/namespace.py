"""`local:`: an agent on this machine, in a PID namespace of its own.

Used on a machine that is source and destination at once, to see and to test the command: the moved
process keeps its PID, so it needs another namespace.  See `phaul.destination.namespace` for the
agent's side.
"""

import socket
import sys
from collections.abc import Sequence
from typing import Final, Self

import anyio

from phaul.errors import AgentFailed, ConnectionLost, PhaulError
from phaul.protocol.messages import Answer
from phaul.transport.child import Child
from phaul.transport.control import SILENCE_S, Control, source_control
from phaul.transport.descriptors import DescriptorStream
from phaul.transport.diagnosis import last_line
from phaul.transport.end import Closing
from phaul.transport.splice import connect_memory

__all__ = ["NamespaceSource"]

_HOST: Final = "local"
_ENDING_S: Final = 5.0


class NamespaceSource(Closing):
    """A SourceEnd whose agent is started by entering it; `agent` is the command for it."""

    control: Control[Answer]
    network = False

    def __init__(self, agent: Sequence[str] = (), *, silence: float = SILENCE_S) -> None:
        self._agent = tuple(agent) or (sys.executable, "-m", "phaul", "agent")
        self._silence = silence
        self._child: Child | None = None

    @property
    def memory_sent(self) -> int | None:
        """Nobody stands between CRIU and the agent, so nobody counts."""
        return None

    async def __aenter__(self) -> Self:
        near, far = socket.socketpair()
        try:
            self._child = Child([*self._agent, "--init"], far)
        except BaseException:
            near.close()
            raise
        stream = DescriptorStream.from_socket(near)
        self.control = source_control(stream, _HOST, explain=self._explain, silence=self._silence)
        return self

    async def open_memory(self, token: str) -> socket.socket:
        """Open the memory channel; see SourceEnd."""
        return connect_memory(token)

    async def aclose(self) -> None:
        """Close the control channel, and end the agent if it does not by itself."""
        with anyio.CancelScope(shield=True):
            if hasattr(self, "control"):
                await self.control.aclose()
            child, self._child = self._child, None
            if child is not None:
                await child.end(_ENDING_S)

    async def _explain(self) -> PhaulError | None:
        if self._child is None:
            return None
        status = await self._child.wait(_ENDING_S)
        said = last_line(await self._child.lines())
        what = f"the agent ended with status {status}: {said}"
        if self.control.spoke:
            return ConnectionLost(what, host=_HOST)
        return AgentFailed(what, host=_HOST)
