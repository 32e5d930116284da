"""Caller and `serve` over the local transport: a whole conversation, and each way it can break."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from phaul.errors import (
    ConnectFailed,
    ConnectionLost,
    CriuError,
    ImageError,
    PhaulError,
    ProtocolError,
    RoundFailed,
    VersionMismatch,
)
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation, Duty, State
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd, SourceEnd
from phaul.transport.caller import Caller
from phaul.transport.local import LocalAgent, LocalSource, local_ends
from phaul.transport.ssh import SshSource
from phaul.transport.stdio import StdioAgent
from tests.unit.protocol.samples import CRIU, HELLO, PREPARE
from tests.unit.transport.fake_agent import EchoAgent

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
LIMIT = 60.0


class Talk:
    """Both ends; `ended` is how the agent's did."""

    def __init__(self, source: LocalSource, agent: EchoAgent) -> None:
        self.source = source
        self.agent = agent
        self.caller = Caller(source.control)
        self.theirs = Conversation()
        self.ended: Exception | None = None
        self.over = anyio.Event()

    async def serve(self) -> None:
        try:
            await serve(self.agent.end.control, self.agent, self.theirs, "host2")
        except PhaulError as error:
            self.ended = error
        self.over.set()

    async def greet(self) -> socket.socket:
        welcome = await self.caller.hello(HELLO, LIMIT)
        memory = await self.source.open_memory(welcome.token)
        await self.caller.call(PREPARE, LIMIT)
        return memory

    async def round(self) -> None:
        with await self.greet() as memory:
            memory.sendall(b"pages")
            await self.caller.call(m.StartRound(number=0), LIMIT)
            await self.caller.call(m.StopRound(number=0), LIMIT)


@asynccontextmanager
async def talk() -> AsyncIterator[Talk]:
    source, end = local_ends()
    async with source, end, anyio.create_task_group() as tasks:
        both = Talk(source, EchoAgent(end))
        tasks.start_soon(both.serve)
        yield both
        both.agent.hold.set()
        await source.aclose()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def test_a_whole_migration(tmp_path: Path) -> None:
    images = {"core-1.img": b"c" * 3_000_000, "inventory.img": b"i", "files.img": b""}
    async with talk() as both:
        await both.round()
        for name, data in images.items():
            await both.caller.send_image(write(tmp_path / name, data))
        assert await both.caller.restore(LIMIT) == 4242
        await both.caller.call(m.Commit(), LIMIT)
        await both.caller.call(m.Bye(), LIMIT)
        await both.over.wait()
        assert both.ended is None
        assert both.agent.images == images
        assert both.caller.conversation.state is both.theirs.state is State.ENDED


async def test_an_error_over_there_is_raised_here() -> None:
    async with talk() as both:
        error = CriuError("no", request="PAGE_SERVER", line="Error: x", log_path="/l", errno=5)
        both.agent.fails[m.StartRound] = error
        (await both.greet()).close()
        with pytest.raises(CriuError) as caught:
            await both.caller.call(m.StartRound(number=0), LIMIT)
        assert vars(caught.value) == {**vars(error), "host": "host2"}
        with pytest.raises(ProtocolError, match="spent"):
            await both.caller.call(m.StartRound(number=0), LIMIT)
        await both.caller.call(m.Bye(), LIMIT)


async def test_a_fault_of_the_agents_program_is_an_answer_too() -> None:
    async with talk() as both:
        both.agent.fails[m.Prepare] = ZeroDivisionError("x")
        await both.caller.hello(HELLO, LIMIT)
        with pytest.raises(PhaulError, match="unexpected ZeroDivisionError"):
            await both.caller.call(PREPARE, LIMIT)
        del both.agent.fails[m.Prepare]
        await both.caller.call(PREPARE, LIMIT)  # it may be asked again


async def test_another_version() -> None:
    async with talk() as both:
        hello = m.Hello(
            versions=m.Versions(oldest=7, newest=9),
            phaul="9.0",
            host="host1",
            criu=CRIU,
            migration="x",
        )
        with pytest.raises(VersionMismatch) as caught:
            await both.caller.hello(hello, LIMIT)
        assert caught.value.exit_code == 5
        assert caught.value.host == "host2"
        await both.over.wait()
        assert both.ended is None


async def test_an_image_that_cannot_be_written_is_the_answer_to_restore(tmp_path: Path) -> None:
    async with talk() as both:
        await both.round()
        both.agent.bad_image = "core-1.img"
        await both.caller.send_image(write(tmp_path / "core-1.img", b"c" * 5_000_000))
        await both.caller.send_image(write(tmp_path / "core-2.img", b"d"))
        with pytest.raises(CriuError, match=r"no space for core-1\.img"):
            await both.caller.restore(LIMIT)
        assert both.agent.images == {"core-2.img": b"d"}
        assert m.Restore(images=2) not in both.agent.asked
        await both.caller.call(m.Bye(), LIMIT)


async def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    async with talk() as both:
        await both.round()
        with pytest.raises(ImageError, match="cannot be read"):
            await both.caller.send_image(tmp_path / "core-1.img")
        await both.caller.call(m.Bye(), LIMIT)


async def test_a_cancelled_call_leaves_its_answer_owed() -> None:
    async with talk() as both:
        await both.caller.hello(HELLO, LIMIT)
        both.agent.hold = anyio.Event()
        with anyio.move_on_after(0.05) as scope:
            await both.caller.call(PREPARE, LIMIT)
        assert scope.cancelled_caught
        both.agent.hold.set()
        assert await both.caller.call(m.Bye(), LIMIT) == m.Done()
        assert [type(asked) for asked in both.agent.asked] == [m.Hello, m.Prepare, m.Bye]


async def test_a_late_answer_is_taken_first() -> None:
    async with talk() as both:
        await both.caller.hello(HELLO, LIMIT)
        both.agent.hold = anyio.Event()
        both.agent.fails[m.Prepare] = RoundFailed("late")
        with pytest.raises(ConnectionLost, match="no answer"):
            await both.caller.call(PREPARE, 0.05)
        both.agent.hold.set()
        assert await both.caller.call(m.Bye(), LIMIT) == m.Done()


@pytest.mark.parametrize(
    ("asks", "duty"),
    [
        ((), Duty.CLEAN_UP),
        ((m.Restore(images=1),), Duty.HOLD),
        ((m.Restore(images=1), m.Commit()), Duty.RUN),
    ],
)
async def test_what_the_agent_owes_when_the_source_is_gone(
    tmp_path: Path, asks: tuple[m.Request, ...], duty: Duty
) -> None:
    async with talk() as both:
        await both.round()
        await both.caller.send_image(write(tmp_path / "core-1.img", b"c"))
        for request in asks:
            await both.caller.call(request, LIMIT)
        await both.source.aclose()
        await both.over.wait()
        assert isinstance(both.ended, ConnectionLost)
        assert both.theirs.duty is duty


async def test_a_source_out_of_turn_is_told_and_left() -> None:
    async with talk() as both:
        await both.source.control.send(m.Commit())
        answer = await both.source.control.receive(LIMIT)
        assert isinstance(answer, m.Failed)
        assert "out of turn" in answer.what
        await both.over.wait()
        assert isinstance(both.ended, ProtocolError)
        assert both.agent.asked == []


async def test_an_agent_out_of_turn() -> None:
    source, end = local_ends()
    async with source, end:
        await end.control.send(m.Ready(pid=1))
        with pytest.raises(ProtocolError, match="no answer to Hello") as caught:
            await Caller(source.control, "host2").hello(HELLO, LIMIT)
        assert caught.value.host == "host2"


def test_the_drivers_are_what_the_interfaces_say() -> None:
    sources: tuple[type[SourceEnd], ...] = (LocalSource, SshSource)
    agents: tuple[type[AgentEnd], ...] = (LocalAgent, StdioAgent)
    assert len(sources) == len(agents)  # the types are checked by mypy


async def test_the_memory_channel_is_opened_once() -> None:
    source, end = local_ends()
    async with source, end:
        with pytest.raises(ConnectionLost, match="no memory channel"):
            await end.accept_memory(0.01)
        with pytest.raises(ConnectFailed):
            await source.open_memory("0" * 32)
        with await source.open_memory(end.token) as near:
            with pytest.raises(ConnectFailed):
                await source.open_memory(end.token)
            near.sendall(b"x")
            with await end.accept_memory(LIMIT) as far:
                assert far.recv(10) == b"x"
