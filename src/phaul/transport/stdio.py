"""The agent's end of the ssh transport: control over standard input and output.

Used on the destination, by `phaul agent`.
"""

from phaul.transport.control import SILENCE_S, agent_control
from phaul.transport.descriptors import DescriptorStream, take_stdio
from phaul.transport.end import DoorAgent

__all__ = ["StdioAgent"]


class StdioAgent(DoorAgent):
    """An AgentEnd over `descriptors`, which are its own from now on.

    Without, it takes the process's standard input and output, and prints then go to standard error.
    """

    def __init__(
        self, descriptors: tuple[int, int] | None = None, *, silence: float = SILENCE_S
    ) -> None:
        reader, writer = descriptors or take_stdio()
        super().__init__(agent_control(DescriptorStream(reader, writer), silence=silence))
