"""A conversation with a real agent over joined sockets, and a later one that settles it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from phaul.criu.engine import Examination
from phaul.destination.agent import run_agent
from phaul.protocol import messages as m
from phaul.transport.caller import Caller
from phaul.transport.local import LocalSource, local_ends
from tests.unit.conftest import Fake
from tests.unit.fake_criu import inventory
from tests.unit.protocol.samples import HELLO, KEY
from tests.unit.rounds import ROUND

LIMIT = 60.0


class Talk:
    """The source's side of a conversation with a real agent; `status` is how that ended."""

    def __init__(self, source: LocalSource, base: Path) -> None:
        self.source = source
        self.caller = Caller(source.control)
        self.base = base
        self.status: int | None = None
        self.memory: socket.socket | None = None

    def left(self) -> list[Path]:
        """What lies in the agents' directory."""
        return sorted(self.base.rglob("*")) if self.base.exists() else []

    async def prepare(self, *, keep_images: bool = False, lease_s: int = 600) -> None:
        welcome = await self.caller.hello(HELLO, LIMIT)
        self.memory = await self.source.open_memory(welcome.token)
        prepare = m.Prepare(
            key=KEY, pids=(4242,), memory_bytes=1 << 20, keep_images=keep_images, lease_s=lease_s
        )
        await self.caller.call(prepare, LIMIT)

    async def round(self, number: int = 0, sent: bytes = ROUND) -> None:
        await self.caller.call(m.StartRound(number=number), LIMIT)
        assert self.memory
        self.memory.sendall(sent)
        await self.caller.call(m.StopRound(number=number), LIMIT)

    async def restore(self, folder: Path) -> int:
        image = folder / "inventory.img"
        image.write_bytes(inventory())
        await self.caller.send_image(image)
        return (await self.caller.restore(LIMIT)).pid

    async def bye(self) -> None:
        await self.caller.call(m.Bye(), LIMIT)


@asynccontextmanager
async def talk(
    fake: Fake, base: Path, silence: float = LIMIT, examination: Examination | None = None
) -> AsyncIterator[Talk]:
    """An agent, and the talk with it; it has ended afterwards."""
    source, end = local_ends(silence=silence)
    both = Talk(source, base)

    async def agent() -> None:
        both.status = await run_agent(end, base, fake.command, examination)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent)
            try:
                yield both
            finally:
                await source.aclose()
                if both.memory is not None:
                    both.memory.close()


class Later:
    """A later connection, which has said hello to settle."""

    def __init__(self, source: LocalSource) -> None:
        self.source = source
        self.caller = Caller(source.control)
        self.status: int | None = None

    async def ask(self, key: str = KEY) -> m.Standing:
        answer = await self.caller.call(m.Ask(key=key, act=True), LIMIT)
        assert isinstance(answer, m.Standing)
        return answer

    async def call(self, request: m.Request) -> m.Answer:
        return await self.caller.call(request, LIMIT)


@asynccontextmanager
async def later(fake: Fake, base: Path) -> AsyncIterator[Later]:
    """Another agent on the same host, asked only to settle; it has ended afterwards."""
    source, end = local_ends(silence=LIMIT)
    made = Later(source)

    async def agent() -> None:
        made.status = await run_agent(end, base, fake.command)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent)
            try:
                await made.caller.hello(msgspec.structs.replace(HELLO, settle=True), LIMIT)
                yield made
            finally:
                await source.aclose()
