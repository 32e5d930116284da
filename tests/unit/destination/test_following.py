"""The keeper's own socket: who may ask there, what, and who brings a link."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from phaul.destination.chain import Chain
from phaul.destination.following import SOCKET, Following, ask_keeper
from phaul.destination.incoming import Keeping, lost, note_lost
from phaul.destination.remaining import abandon, bring_link, drain, with_memory
from phaul.errors import PageStoreError, ProtocolError, UsageError
from phaul.pages.remote.link import SIZE, Kind, decode
from phaul.protocol import keeping as k
from phaul.protocol import messages as m
from phaul.protocol.messages import Done
from phaul.protocol.settlement import Copy

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
RUNNING = m.Standing(copy=Copy.RUNNING, pid=7)


class Keeper:
    """What a keeper says, at its own socket; `asked` is what it heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.following = Following()
        self.asked: list[k.KeeperRequest] = []
        self.stage = k.Stage.DRAINING
        self.failure: m.Failed | None = None

    async def answer(self, request: k.KeeperRequest, descriptors: list[int]) -> k.KeeperAnswer:
        self.asked.append(request)
        match request:
            case k.Attach():
                self.following.attach(descriptors)
            case k.Look():
                return k.Standing(
                    stage=self.stage, pages=9, given=2, lacking=7, failure=self.failure
                )
            case k.Abandon():
                (self.folder / SOCKET).unlink()
            case _:
                pass
        return Done()


@asynccontextmanager
async def keeper(folder: Path) -> AsyncIterator[Keeper]:
    made = Keeper(folder)
    chain = Chain()
    chain.elsewhere[7] = ((0x1000, 9),)
    try:
        assert made.following.begin(chain, folder, 600) is not None
        async with anyio.create_task_group() as tasks:
            await made.following.listen(folder, tasks, made.answer)
            yield made
            tasks.cancel_scope.cancel()
    finally:
        made.following.close()
        chain.close()


async def test_what_a_later_connection_is_told(tmp_path: Path) -> None:
    async with keeper(tmp_path) as made:
        found = await with_memory(RUNNING, tmp_path)
        assert (found.lacking, found.lost) == (7, "")
        assert not (await drain(tmp_path)).over
        made.stage, made.failure = k.Stage.FAILED, m.Failed(kind="PageStoreError", what="gone")
        assert (await with_memory(RUNNING, tmp_path)).lost == "gone"
        assert (await drain(tmp_path)).failure == "gone"
        held = m.Standing(copy=Copy.HELD)
        assert await with_memory(held, tmp_path) is held
    assert not (tmp_path / SOCKET).exists()


async def test_a_link_is_brought_and_used(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    async with keeper(tmp_path) as made:
        with ours, theirs:
            await bring_link(tmp_path, theirs.fileno(), "here")
            assert made.following.lacking == 9
            made.following.sweep()
            ours.settimeout(20)
            asked = decode(ours.recv(SIZE, socket.MSG_WAITALL))
            assert (asked.kind, asked.address, asked.pages) == (Kind.ASK, 0x1000, 9)
        assert made.asked == [k.Attach(), k.Leave(told=True)]


async def test_what_is_the_agent_s_alone_is_refused(tmp_path: Path) -> None:
    async with keeper(tmp_path) as made:
        with pytest.raises(UsageError, match="for the agent alone"):
            await ask_keeper(tmp_path, k.Guard(pid=7))
        with pytest.raises(ProtocolError, match="0 sockets"):
            await ask_keeper(tmp_path, k.Attach())
        assert made.asked == [k.Attach()]


async def test_it_is_abandoned(tmp_path: Path) -> None:
    async with keeper(tmp_path) as made:
        await abandon(tmp_path)
        assert made.asked[0] == k.Abandon()
    await abandon(tmp_path)  # where there is nobody any more


async def test_a_keeper_that_has_ended_left_word_or_nothing(tmp_path: Path) -> None:
    assert (await drain(tmp_path)).over
    assert (await with_memory(RUNNING, tmp_path)) == RUNNING
    (tmp_path / "images").mkdir()
    note_lost(tmp_path, "no link", follows=True)
    assert lost(tmp_path) == "no link"
    assert (await drain(tmp_path)).failure == "no link"
    assert (await with_memory(RUNNING, tmp_path)).lost == "no link"
    assert [path.name for path in tmp_path.iterdir()] == ["LOST"]


async def test_one_that_lives_and_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with Keeping.begin(tmp_path), pytest.raises(PageStoreError, match="no keeper"):
        await drain(tmp_path)


async def test_where_nothing_follows_nobody_listens(tmp_path: Path) -> None:
    following = Following()
    assert following.begin(Chain(), tmp_path, 600) is None
    async with anyio.create_task_group() as tasks:
        await following.listen(tmp_path, tasks, Keeper(tmp_path).answer)
    await following.finish()
    following.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208
