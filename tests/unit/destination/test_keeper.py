"""The keeper's order of steps, and its end; with a real CRIU it is in the engine tests."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from phaul.destination.chain import DAEMON_DIR
from phaul.destination.keeper import Keeper
from phaul.destination.warden import Warden
from phaul.protocol import keeping as k
from phaul.protocol.messages import Done, Failed
from tests.unit.destination.test_chain import LAZY, PARENT, PRESENT, write_metadata, write_round

pytestmark = pytest.mark.anyio
DAEMON = """
cd "$4"; test "$(cat inventory.img)" = metadata || exit 3
touch lazy-pages.socket lazy-pages.log; printf . >/proc/self/fd/$9; exec sleep 1000
"""
"""What stands for CRIU: it waits for the inventory, and says by a descriptor that it is ready."""
Ask = Callable[[bytes], Awaitable[k.KeeperAnswer]]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Ask]:
    """A keeper of the images below `tmp_path`, which ends with the test."""
    (tmp_path / "images").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setblocking(False)

    async def receive() -> k.KeeperAnswer:
        with anyio.fail_after(20):
            await anyio.wait_readable(ours)
        return k.decode_answer(ours.recv(k.MAX_PACKET))

    async def send(packet: bytes) -> k.KeeperAnswer:
        ours.send(packet)
        return await receive()

    with ours, theirs, near, far:
        program = ["/bin/sh", "-c", DAEMON]
        keeper = Keeper(theirs, tmp_path, program, Warden(near))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keeper.run)
                assert await receive() == k.Here(pid=os.getpid())
                yield send
                ours.shutdown(socket.SHUT_RDWR)
        keeper.leave()


def finish(*, least: int, most: int) -> k.Finish:
    return k.Finish(folder="1", least=least, most=most, wide=True)


async def failed(ask: Ask, request: k.KeeperRequest) -> str:
    answer = await ask(k.encode(request))
    assert isinstance(answer, Failed), answer
    return answer.what


async def test_rounds_are_counted(ask: Ask, tmp_path: Path) -> None:
    write_round(tmp_path / "images/0", (0, 8, LAZY | PRESENT))
    last = write_round(tmp_path / "images/1", (0, 2, LAZY | PRESENT), (2, 6, PARENT))
    assert await ask(k.encode(k.Add(folder="0"))) == Done()
    assert await ask(k.encode(k.Add(folder="1"))) == Done()
    write_metadata(last)
    counted = await ask(k.encode(finish(least=1, most=8)))
    assert counted == k.Counted(pages=8, started=True)
    assert (last / "lazy-pages.socket").exists()
    assert "once" in await failed(ask, finish(least=1, most=6))


@pytest.mark.parametrize(("least", "most"), [(71, 99), (1, 69)])
async def test_what_is_not_worth_it_is_counted_only(
    ask: Ask, tmp_path: Path, least: int, most: int
) -> None:
    write_metadata(write_round(tmp_path / "images/1", (0, 70, LAZY | PRESENT)))
    counted = await ask(k.encode(finish(least=least, most=most)))
    assert counted == k.Counted(pages=70, started=False)
    assert not (tmp_path / "images/1/lazy-pages.socket").exists()
    assert not (tmp_path / DAEMON_DIR).exists()
    assert "after Finish" in await failed(ask, k.Guard(pid=1))


async def test_a_daemon_that_could_not_wait_is_told_of_when_it_is_needed(
    ask: Ask, tmp_path: Path
) -> None:
    write_metadata(write_round(tmp_path / "images/1", (0, 70, LAZY | PRESENT)))
    (tmp_path / "images/1/inventory.img").write_bytes(b"bad")
    assert "ended with status 3" in await failed(ask, finish(least=1, most=70))


async def test_rounds_come_in_order(ask: Ask, tmp_path: Path) -> None:
    write_round(tmp_path / "images/1", (0, 6, LAZY | PRESENT))
    assert await ask(k.encode(k.Add(folder="1"))) == Done()
    assert "round 0 comes after round 1" in await failed(ask, k.Add(folder="0"))
    assert "round 1 comes after round 1" in await failed(ask, k.Add(folder="1"))


async def test_what_is_not_there_is_told(ask: Ask) -> None:
    assert "No such file" in await failed(ask, k.Add(folder="7"))


@pytest.mark.parametrize("request_", [k.Guard(pid=1), k.Look()], ids=repr)
async def test_steps_out_of_turn(ask: Ask, request_: k.KeeperRequest) -> None:
    assert "after" in await failed(ask, request_)


async def test_what_is_no_request_is_answered(ask: Ask) -> None:
    answer = await ask(b"{}")
    assert isinstance(answer, Failed)
    assert "no message" in answer.what
