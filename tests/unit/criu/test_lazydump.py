"""The driver of a dump that leaves the memory out, against programs that stand for CRIU."""

import fcntl
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import Engine
from phaul.criu.lazydump import LazyDump, require_pipes
from phaul.criu.operation import directory_fd
from phaul.criu.rpc import CriuOptions, Request, RequestType
from phaul.errors import CriuDied, CriuError, CriuNotFound, FeatureMissing, UsageError
from tests.unit.lazy_criu import lazy_criu

pytestmark = pytest.mark.usefixtures("small_pipes")


@asynccontextmanager
async def begun(
    folder: Path, body: str, options: CriuOptions | None = None
) -> AsyncIterator[LazyDump]:
    options = options or CriuOptions()
    dump = LazyDump.start(lazy_criu(folder, body), options.config_file)
    try:
        with directory_fd(folder) as descriptor:
            request = Request(
                RequestType.DUMP, options, images_dir_fd=descriptor, pid=7, memory_fd=3
            )
            await dump.begin(request, folder / "dump.log", 20)
        yield dump
    finally:
        await dump.close()
        await dump.close()


def test_it_serves_on_our_socket_when_it_is_told(tmp_path: Path) -> None:
    body = """
assert opts.lazy_pages and opts.notify_scripts and not opts.HasField("ps")
assert hold("post-dump") and hold("status-ready")
pages.send(b"served")
assert pages.recv(9) == b"close"
end(True)
"""

    async def main() -> None:
        async with begun(tmp_path, body) as dump:
            await dump.pass_on()
            dump.pages.setblocking(False)
            with pytest.raises(BlockingIOError):
                dump.pages.recv(9)
            await dump.serve()
            await anyio.wait_readable(dump.pages)
            assert dump.pages.recv(9) == b"served"
            dump.pages.send(b"close")
            await dump.served()

    anyio.run(main)


def test_the_users_own_configuration_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "own.conf"
    own.write_text("tcp-close")
    body = 'assert told[:2] == ["tcp-close", "ps-socket"]; hold("post-dump"); end(False)'

    async def main() -> None:
        async with begun(tmp_path, body, CriuOptions(config_file=str(own))) as dump:
            await dump.refuse()

    anyio.run(main)
    with pytest.raises(UsageError, match=r"none\.conf cannot be read"):
        LazyDump.start(Engine(), str(tmp_path / "none.conf"))


@pytest.mark.parametrize("passed", [False, True])
def test_it_is_refused_where_it_is_held(passed: bool, tmp_path: Path) -> None:
    body = """
accepted = hold("post-dump"), hold("status-ready")
open(opts.log_file, "w") if opts.log_file else None
end(accepted == (PASSED, True))
"""

    async def main() -> None:
        async with begun(tmp_path, body.replace("PASSED", str(passed))) as dump:
            if passed:
                await dump.pass_on()
            await dump.refuse()
            assert await dump.close() == 1

    anyio.run(main)


def test_one_that_dies_while_it_serves_is_seen(tmp_path: Path) -> None:
    body = 'hold("post-dump"); hold("status-ready"); os.kill(os.getpid(), 9)'

    async def main() -> None:
        async with begun(tmp_path, body) as dump:
            await dump.pass_on()
            await dump.serve()
            with pytest.raises(CriuDied, match="SIGKILL"):
                await dump.served()

    anyio.run(main)


def test_its_status_counts(tmp_path: Path) -> None:
    body = 'hold("post-dump"); hold("status-ready"); say(type=1, success=True); sys.exit(3)'

    async def main() -> None:
        async with begun(tmp_path, body) as dump:
            await dump.pass_on()
            await dump.serve()
            with pytest.raises(CriuError, match="ended with status 3"):
                await dump.served()

    anyio.run(main)


def test_nothing_is_begun_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        dump = LazyDump.start(Engine([sys.executable, "-c", "input()"]))
        with pytest.raises(UsageError, match="no dump yet"):
            await dump.refuse()
        await dump.close()

    anyio.run(main)


def test_pipes_that_are_too_small_are_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pipes()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(FeatureMissing, match="4 MiB: Operation not permitted") as caught:
        LazyDump.start(Engine(host="here"))
    assert "fs.pipe-max-size" in caught.value.remedy
    assert caught.value.host == "here"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_criu_that_is_not_there_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(CriuNotFound, match="cannot be started"):
        LazyDump.start(Engine(["/nowhere/criu"]))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
