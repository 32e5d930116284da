"""A `phaul agent` that takes all and does nothing, for the tests of the transports."""

import socket
import sys
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread

from phaul.errors import CriuError
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation
from phaul.protocol.handshake import negotiate
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd
from phaul.transport.splice import splice_memory
from phaul.transport.stdio import StdioAgent
from tests.unit.protocol.samples import FACTS


class EchoAgent:
    """Sends back what comes over the memory channel; keeps images in memory."""

    def __init__(self, end: AgentEnd) -> None:
        self.end = end
        self.images: dict[str, bytes] = {}
        self.asked: list[m.Request] = []
        self.fails: dict[type[m.Request], Exception] = {}
        self.bad_image = ""
        self.hold = anyio.Event()
        self.hold.set()

    async def handle(self, request: m.Request) -> m.Answer:
        self.asked.append(request)
        await self.hold.wait()
        if error := self.fails.get(type(request)):
            raise error
        match request:
            case m.Hello():
                version = negotiate(request.versions)
                return m.Welcome(version=version, facts=FACTS, token=self.end.token)
            case m.StartRound(number=0):
                with await self.end.accept_memory(30) as sock:
                    await anyio.to_thread.run_sync(self._echo, sock)
            case m.Restore():
                return m.Ready(pid=4242)
        return m.Done()

    def _echo(self, sock: socket.socket) -> None:
        sock.sendall(sock.recv(1 << 20).upper())

    async def image(self, image: m.Image, chunks: AsyncIterator[bytes]) -> None:
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if image.name == self.bad_image:
                raise CriuError(f"no space for {image.name}", request="RESTORE")
        self.images[image.name] = bytes(data)


async def run() -> None:
    async with StdioAgent() as end:
        print("this must not reach the source")
        await serve(end.control, EchoAgent(end), Conversation(), "host2")


if __name__ == "__main__":
    if "--memory" in sys.argv:
        splice_memory(sys.argv[sys.argv.index("--memory") + 1])
    else:
        anyio.run(run)
