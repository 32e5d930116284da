"""A page server's status decides; it and its worker are gone afterwards, whatever happened."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import Engine
from phaul.criu.page_server import PageServer
from phaul.errors import CriuDied, CriuError, CriuTimeout
from tests.unit.conftest import Fake, state
from tests.unit.scenario import Fault, PageServing

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


async def start(
    fake: Fake, directory: Path, sock: socket.socket, parent: str | None = None
) -> PageServer:
    return await PageServer.start(
        Engine(fake.command, "there").worker((sock.fileno(),)),
        directory,
        parent,
        sock.fileno(),
        log_level=2,
    )


async def gone(pid: int) -> None:
    with anyio.fail_after(30):
        while state(pid) not in {"", "Z"}:
            await anyio.sleep(0.01)


Pair = tuple[socket.socket, socket.socket]


async def test_receives_a_round(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    server = await start(fake, tmp_path, pair[1], "../0")
    pair[0].sendall(struct.pack("<Q", 3) + b"abc")
    await server.wait()
    assert await server.worker.close() == 0
    assert (tmp_path / "pages-1.img").exists()
    assert (tmp_path / "parent").readlink() == Path("../0")
    assert state(server.pid) == ""
    assert pair[1].fileno() > 0


async def test_a_bad_status(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    fake.play(page_servers=(PageServing(status=2, log="(00.1) Error (criu/x.c:1): not flushed\n"),))
    server = await start(fake, tmp_path, pair[1])
    pair[0].sendall(struct.pack("<Q", 0))
    with pytest.raises(CriuError, match="status 2") as caught:
        await server.wait()
    assert caught.value.line == "Error (criu/x.c:1): not flushed"
    assert caught.value.host == "there"
    assert caught.value.remedy


async def test_the_source_dies(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    server = await start(fake, tmp_path, pair[1])
    pair[0].sendall(struct.pack("<Q", 100) + b"a")
    pair[0].shutdown(socket.SHUT_RDWR)
    with pytest.raises(CriuError, match="Socket was closed"):
        await server.wait()


async def test_one_that_does_not_end(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    server = await start(fake, tmp_path, pair[1])
    with anyio.move_on_after(0.2) as scope:
        await server.wait()
    assert scope.cancelled_caught
    late = server.late(0.2)
    assert isinstance(late, CriuTimeout)
    assert "within 0.2 s" in str(late)
    server.kill()
    await server.worker.close()
    await gone(server.pid)


async def test_to_kill_it_ends_the_wait(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    server = await start(fake, tmp_path, pair[1])
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(CriuDied, match="SIGKILL"):
                await server.wait()

        group.start_soon(wait)
        await anyio.sleep(0.1)
        server.kill()
    await gone(server.pid)


async def test_its_worker_is_killed(fake: Fake, tmp_path: Path, pair: Pair) -> None:
    fake.play(page_servers=(PageServing(worker_dies=True),))
    server = await start(fake, tmp_path, pair[1])
    with pytest.raises(CriuDied, match="SIGKILL"):
        await server.wait()
    server.kill()
    await gone(server.pid)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(kind="fail", log="(00.1) Error (a.c:1): no way\n"), CriuError, "no way"),
        (Fault(kind="signal", number=15), CriuDied, "SIGTERM"),
        (Fault(kind="exit", number=4), CriuDied, "ended with status 4"),
    ],
)
async def test_one_that_does_not_start(
    fake: Fake, tmp_path: Path, pair: Pair, fault: Fault, kind: type[CriuError], said: str
) -> None:
    fake.play(page_servers=(PageServing(fault=fault),))
    with pytest.raises(kind, match=said):
        await start(fake, tmp_path, pair[1])
