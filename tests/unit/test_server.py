"""What the synchronous surface adds to the destination's session."""

import socket
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
    UsageError,
    WorkDirError,
)
from tests.unit.conftest import Fake, descriptors
from tests.unit.scenario import Fault, PageServing

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path, fake: Fake) -> Iterator[Config]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield Config(memory_fd=ours.fileno(), work_dir=tmp_path / "work", criu=fake.command)


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


def test_logs_stay_if_something_failed(config: Config, fake: Fake) -> None:
    log = "(00.1) Error (a.c:1): no\n"
    fake.play(page_servers=(PageServing(fault=Fault(kind="fail", log=log)),))
    with Server(config) as server, pytest.raises(Exception, match="no"):
        server.start_iteration()
    left = [path.name for path in config.work_dir.rglob("*") if path.is_file()]
    assert left == ["page-server.log"]


def test_a_failure_leaves_nothing_where_no_logs_are_wanted(config: Config, fake: Fake) -> None:
    fake.play(page_servers=(PageServing(fault=Fault(kind="fail", log="x")),))
    server = Server(config)
    with pytest.raises(Exception, match="PAGE_SERVER"):
        server.start_iteration()
    server.close(keep_logs=False)
    assert not config.work_dir.exists()


async def test_from_another_loop(config: Config) -> None:
    with Server(config) as server:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await server.start_iteration_async()  # seen to its end
        assert server.last_images_dir == config.work_dir / "0"
    with pytest.raises(UsageError, match="closed"):
        await server.stop_iteration_async()


async def test_a_failure_from_another_loop(config: Config, fake: Fake) -> None:
    log = "(00.1) Error (a.c:1): no\n"
    fake.play(page_servers=(PageServing(fault=Fault(kind="fail", log=log)),))
    with Server(config) as server, pytest.raises(CriuError, match="no"):
        await server.start_iteration_async()


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
