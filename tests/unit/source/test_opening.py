"""The memory channel is opened beside the preflight, and no attempt to open it is left behind."""

import socket
from types import TracebackType
from typing import Self

import anyio
import pytest

from phaul.errors import ConnectFailed
from phaul.protocol.messages import Answer
from phaul.source.opening import Opening
from phaul.transport.control import Control

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
TOKEN = "0" * 32


class End:
    """A source's end that opens, fails, or hangs."""

    control: Control[Answer]
    network = True
    memory_sent = None

    def __init__(self, how: str) -> None:
        self.how = how
        self.tokens: list[str] = []
        self.begun = anyio.Event()
        self.cancelled = False

    async def open_memory(self, token: str) -> socket.socket:
        self.tokens.append(token)
        self.begun.set()
        if self.how == "fails":
            raise ConnectFailed("no")
        if self.how == "hangs":
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled = True
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


async def test_it_is_open_when_it_is_wanted_and_closed_afterwards() -> None:
    end = End("opens")
    async with anyio.create_task_group() as tasks:
        async with Opening(end, TOKEN, tasks) as opening:
            memory = await opening.socket()
            assert memory is await opening.socket()
            assert memory.fileno() >= 0
        assert memory.fileno() == -1
    assert end.tokens == [TOKEN]


async def test_what_went_wrong_is_told_when_it_is_wanted() -> None:
    async with (
        anyio.create_task_group() as tasks,
        Opening(End("fails"), TOKEN, tasks) as opening,
    ):
        with pytest.raises(ConnectFailed):
            await opening.socket()


async def test_one_that_nobody_asked_about_leaves_nothing() -> None:
    for how in ("opens", "fails"):
        end = End(how)
        async with anyio.create_task_group() as tasks, Opening(end, TOKEN, tasks):
            await end.begun.wait()


async def test_an_attempt_under_way_is_ended() -> None:
    end = End("hangs")
    async with anyio.create_task_group() as tasks:
        async with Opening(end, TOKEN, tasks):
            await end.begun.wait()
        assert end.cancelled
