"""What the synchronous surface adds to the destination's session."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from phaul import Config, Server, Version
from phaul.errors import (
    CriuError,
    CriuTooOld,
    CriuUnfit,
    DescriptorError,
    PageStoreError,
    UsageError,
    WorkDirError,
)
from tests.unit.conftest import Fake, descriptors
from tests.unit.fake_criu import inventory
from tests.unit.rounds import ROUND, UNFOUNDED
from tests.unit.scenario import Fault, Restore

pytestmark = pytest.mark.anyio


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


@pytest.fixture
def config(tmp_path: Path, fake: Fake, pair: tuple[socket.socket, socket.socket]) -> Config:
    return Config(memory_fd=pair[0].fileno(), work_dir=tmp_path / "work", criu=fake.command)


@pytest.fixture
def source(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


def fail_to_restore(server: Server, fake: Fake, source: socket.socket) -> None:
    fake.play(restore=Restore(fault=Fault(kind="fail", log="(00.1) Error (a.c:1): no\n")))
    server.start_iteration()
    source.sendall(ROUND)
    server.stop_iteration()
    assert server.last_images_dir
    (server.last_images_dir / "inventory.img").write_bytes(inventory())
    with pytest.raises(CriuError, match="no"):
        server.restore()


@pytest.mark.usefixtures("no_leaks")
def test_it_leaves_nothing(config: Config) -> None:
    before, threads = descriptors(), threading.active_count()
    with Server(config) as server:
        assert server.criu_version == Version(4, 2, 1)
        assert server.last_images_dir is None
        server.start_iteration()
    assert not config.work_dir.exists()
    assert descriptors() == before
    assert threading.active_count() == threads


def test_close_may_be_called_again(config: Config) -> None:
    with Server(config) as server:
        server.close()
        server.close()


def test_close_with_the_images_kept(config: Config) -> None:
    server = Server(config)
    server.start_iteration()
    server.close(keep_images=True)
    assert config.work_dir.is_dir()


def test_logs_stay_if_something_failed(config: Config, fake: Fake, source: socket.socket) -> None:
    with Server(config) as server:
        fail_to_restore(server, fake, source)
    left = [path.name for path in config.work_dir.rglob("*") if path.is_file()]
    assert left == ["restore.log"]


def test_a_failure_leaves_nothing_where_no_logs_are_wanted(
    config: Config, fake: Fake, source: socket.socket
) -> None:
    server = Server(config)
    fail_to_restore(server, fake, source)
    server.close(keep_logs=False)
    assert not config.work_dir.exists()


def test_one_that_is_forgotten_in_a_round_keeps_no_program(fake: Fake, tmp_path: Path) -> None:
    words = (
        "import socket, sys, phaul\n"
        "ours, peer = socket.socketpair()\n"
        "config = phaul.Config(memory_fd=ours.fileno(), work_dir=sys.argv[1], criu=sys.argv[2:])\n"
        "phaul.Server(config).start_iteration()\n"
    )
    program = [sys.executable, "-c", words, str(tmp_path / "work"), *fake.command]
    assert subprocess.run(program, timeout=60, check=False).returncode == 0


async def test_from_another_loop(config: Config) -> None:
    with Server(config) as server:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await server.start_iteration_async()  # seen to its end
        assert server.last_images_dir == config.work_dir / "0"
    with pytest.raises(UsageError, match="closed"):
        await server.stop_iteration_async()


async def test_a_failure_from_another_loop(config: Config, source: socket.socket) -> None:
    with Server(config) as server:
        await server.start_iteration_async()
        source.sendall(UNFOUNDED)
        with pytest.raises(PageStoreError, match="in the round before"):
            await server.stop_iteration_async()


def test_from_several_threads(config: Config) -> None:
    with Server(config) as server:
        thread = threading.Thread(target=server.start_iteration)
        thread.start()
        thread.join()
        assert server.last_images_dir == config.work_dir / "0"


@pytest.mark.usefixtures("no_leaks")
def test_preflight(config: Config, fake: Fake) -> None:
    threads = threading.active_count()
    with pytest.raises(DescriptorError):
        Server(replace(config, memory_fd=-1))
    fake.play(version=(3, 17, 1))
    with pytest.raises(CriuTooOld):
        Server(config)
    fake.play(check=Fault(kind="fail", message="odd kernel"))
    with pytest.raises(CriuUnfit, match=r"destination: .*odd kernel"):
        Server(config)
    fake.play()
    config.work_dir.touch()
    with pytest.raises(WorkDirError):
        Server(config)
    assert threading.active_count() == threads
