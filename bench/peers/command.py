"""`phaul migrate` to `local:`, with the link of the bench in between, and a stopwatch on both ends.

    python3 -S -P -m bench.peers.command migrate FOLDER LINE PID OPTION...
    python3 -S -P -m bench.peers.command agent FOLDER [--init]

The first is the command as it is, whose result goes to standard output as JSON; what the stopwatch
says, and the bytes of the control channel, into FOLDER/source.json.  The second is its agent; its
stopwatch's go into FOLDER/agent.json.  LINE is a descriptor of the link's, `-` for none.
"""

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import phaul.agent as agents
from bench.peers.link import Line
from bench.stopwatch import Stopwatch, agent_steps, source_steps
from phaul.cli.main import main as phaul
from phaul.criu.operation import Operation
from phaul.protocol.messages import Answer
from phaul.transport import namespace
from phaul.transport.caller import Caller
from phaul.transport.child import Child
from phaul.transport.control import Control, source_control
from phaul.transport.descriptors import DescriptorStream

_AGENT: Final = (sys.executable, "-S", "-P", "-m", "bench.peers.command", "agent")


class Counting(DescriptorStream):
    """The control channel's stream, which counts."""

    carried = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive, and count."""
        data = await super().receive(max_bytes)
        self.carried += len(data)
        return data

    async def send(self, item: bytes) -> None:
        """Count, and send."""
        self.carried += len(item)
        await super().send(item)


class End(namespace.NamespaceSource):
    """The agent of the bench, with the link before both of its channels."""

    control: Control[Answer]

    def __init__(self, folder: Path, line: Line | None, _agent: Sequence[str] = ()) -> None:
        super().__init__((*_AGENT, str(folder)))
        self._line = line
        self.stream: Counting | None = None

    async def __aenter__(self) -> Self:
        near, far = self._line.pair() if self._line else socket.socketpair()
        self._child = Child([*self._agent, "--init"], far)
        descriptor = near.detach()
        self.stream = Counting(descriptor, descriptor)
        self.control = source_control(self.stream, "local", explain=self._explain)
        return self

    async def open_memory(self, token: str) -> socket.socket:
        """The memory channel, behind the same link."""
        memory = await super().open_memory(token)
        if self._line is None:
            return memory
        near, far = socket.socketpair()
        self._line.join(far, memory)
        return near


def migrate(folder: Path, line: Line | None, pid: str, options: Sequence[str]) -> int:
    """Be the command."""
    watch, ends = Stopwatch(), list[End]()
    source_steps(watch)
    watch.on(Operation, "until", "CRIU's dump, to post-dump")
    watch.on(Operation, "finish", "CRIU's end of the dump")
    watch.on(Caller, "send_image", "an image, sent")

    def connect(agent: Sequence[str] = ()) -> End:
        ends.append(End(folder, line, agent))
        return ends[-1]

    setattr(namespace, "NamespaceSource", connect)  # noqa: B010 -- which mypy would not have
    try:
        return phaul(["migrate", pid, "local:", "--json", "--quiet", *options])
    finally:
        control = sum(end.stream.carried for end in ends if end.stream)
        said = json.dumps({"spans": watch.spans, "control": control})
        (folder / "source.json").write_text(said)


def agent(folder: Path) -> int:
    """Be the agent."""
    watch = Stopwatch()
    agent_steps(watch)
    run = agents._run

    def timed(directory: Path | None, criu: str | None) -> int:
        try:
            return run(directory, criu)
        finally:
            (folder / "agent.json").write_text(json.dumps({"spans": watch.spans}))

    agents._run = timed
    return agents.main(["--init", "--directory", str(folder / "agent")])


def main(words: Sequence[str]) -> int:
    """See the module."""
    match words:
        case ["migrate", folder, line, pid, *options]:
            return migrate(Path(folder), Line.of(line), pid, options)
        case ["agent", folder, "--init"]:
            return agent(Path(folder))
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
