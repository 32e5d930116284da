"""phaul's own page server, as the session has it: rounds and what is wrong with them."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync as in_thread

from phaul import Config
from phaul.criu.images import read_pagemap
from phaul.destination import reception
from phaul.destination.reception import Room
from phaul.destination.session import DestinationSession
from phaul.errors import ImageError, MemoryChannelError, PageStoreError
from phaul.pages.receiving import Commands, Kind, Map, PagesFile
from phaul.pages.receiving.wire import Add, Close, Open
from phaul.pages.store.index import PAGE
from tests.unit.conftest import Fake

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
WIRE = Commands(wide=True)
ONE = Map(Kind.PROCESS, 7)
MUCH = 33 << 20


@pytest.fixture
def source(tmp_path: Path, fake: Fake) -> Iterator[tuple[Config, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Config(memory_fd=ours.fileno(), work_dir=tmp_path / "w", criu=fake.command), theirs


def send(sock: socket.socket, *ranges: Add) -> None:
    """What CRIU sends in a round."""
    sock.sendall(WIRE.encode(Open(ONE, answered=True)))
    assert sock.recv(1)
    for each in ranges:
        sock.sendall(WIRE.encode(each) + (bytes(each.pages * PAGE) if each.flags & 4 else b""))
    sock.sendall(WIRE.encode(Close()))
    assert sock.recv(4, socket.MSG_WAITALL) == bytes(4)


async def test_two_rounds(source: tuple[Config, socket.socket]) -> None:
    config, sock = source
    async with DestinationSession(config, expected=MUCH) as session:
        await session.start_iteration()
        await in_thread(send, sock, Add(ONE, PAGE, 2, 4))
        await session.stop_iteration()
        await session.start_iteration()
        await in_thread(send, sock, Add(ONE, PAGE, 1, 1), Add(ONE, 2 * PAGE, 1, 4))
        await session.stop_iteration()
        images = session.last_images_dir
        assert images is not None
        assert (images / "parent").readlink() == Path("../0")
        assert (images / "pages-1.img").stat().st_size == PAGE
        assert (images.parent / "0/pages-1.img").stat().st_size == 2 * PAGE
        assert len(read_pagemap(images / "pagemap-7.img").ranges) == 2
    assert not config.work_dir.exists()


async def test_a_hole_in_the_chain(source: tuple[Config, socket.socket]) -> None:
    config, sock = source
    async with DestinationSession(config, expected=MUCH) as session:
        await session.start_iteration()
        await in_thread(send, sock, Add(ONE, PAGE, 1, 4))
        await session.stop_iteration()
        await session.start_iteration()
        sock.sendall(WIRE.encode(Open(ONE, answered=False)) + WIRE.encode(Add(ONE, 0, 1, 1)))
        with pytest.raises(PageStoreError, match="in the round before"):
            await session.stop_iteration()
        assert session.last_images_dir is None
        with pytest.raises(MemoryChannelError):
            await session.start_iteration()


async def test_a_round_that_does_not_end(source: tuple[Config, socket.socket]) -> None:
    config, sock = source
    async with DestinationSession(config, expected=MUCH) as session:
        await session.start_iteration()
        sock.sendall(WIRE.encode(Open(ONE, answered=False)))
    assert not config.work_dir.exists()
    assert sock.recv(1) == b""


async def test_images_that_cannot_be_written(source: tuple[Config, socket.socket]) -> None:
    config, sock = source
    async with DestinationSession(config, expected=MUCH) as session:
        await session.start_iteration()
        images = session.last_images_dir
        assert images is not None
        (images / "pages-1.img").mkdir()
        sock.sendall(WIRE.encode(Open(ONE, answered=False)))
        with pytest.raises(ImageError, match="cannot be written"):
            await session.stop_iteration()


async def test_room_is_made_beside(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        room = Room.begin(tmp_path, 1 << 20)
        assert room is not None
        tasks.start_soon(room.make)
        file = await room.take()
        assert file is not None
        assert file.capacity == 1 << 20
        file.close()
        room.close()


async def test_room_is_taken_as_far_as_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large process, whose round does not wait for all of it."""
    monkeypatch.setattr(reception, "_WAIT_S", 0.01)
    monkeypatch.setattr(reception, "_STEP", 1 << 16)
    begun, go_on = threading.Event(), threading.Event()
    grow = PagesFile.grow

    def slow(self: PagesFile, size: int) -> None:
        begun.set()
        assert go_on.wait(10)
        grow(self, size)

    monkeypatch.setattr(PagesFile, "grow", slow)
    room = Room.begin(tmp_path, 1 << 20)
    assert room is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.make)
        await in_thread(begun.wait)
        threading.Timer(0.1, go_on.set).start()
        file = await room.take()
    assert file is not None
    assert file.capacity == 1 << 16
    file.close()
    room.close()


async def test_room_that_nobody_takes(tmp_path: Path) -> None:
    room = Room.begin(tmp_path, 1 << 20)
    assert room is not None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(room.make)
        await anyio.sleep(0)
        room.close()
    room.close()
    assert Room.begin(tmp_path / "nowhere", 1 << 20) is None
