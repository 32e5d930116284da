"""The driver of the lazy-pages daemon, against programs that stand for CRIU."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.criu import lazydaemon
from phaul.criu.lazydaemon import LOG, LazyDaemon
from phaul.errors import CriuDied, CriuError, CriuNotFound, CriuTimeout

HEAD = """
import os, signal, sys
words = sys.argv[1:]
of = lambda name: words[words.index(name) + 1]
os.chdir(of("--work-dir"))
images = os.open(of("--images-dir"), os.O_RDONLY)
log = open(of("--log-file"), "w", buffering=1)
def say(line):
    log.write(line + "\\n")
def image(name):
    with open(os.open(name, os.O_RDONLY, dir_fd=images), "rb") as file:
        return file.read()
def ready():
    said = image("inventory.img") + image("pstree.img")
    open("lazy-pages.socket", "w").close()
    os.write(int(of("--status-fd")), b"\\0")
    return said
"""
INVENTORY = bytes(range(256)) * 400
"""More than a pipe takes at once."""


@pytest.fixture
def pages() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs


def program(folder: Path, body: str) -> list[str]:
    path = folder / "criu.py"
    path.write_text(HEAD + body)
    return [sys.executable, "-S", str(path)]


def begin(folder: Path, pages: socket.socket, body: str) -> LazyDaemon:
    (folder / "standby").mkdir()
    return LazyDaemon.begin(program(folder, body), folder / "standby", pages, host="there")


async def start(folder: Path, pages: socket.socket, body: str) -> LazyDaemon:
    daemon = begin(folder, pages, body)
    (folder / "standby/pstree.img").write_bytes(b"the tree")
    try:
        await daemon.tell(INVENTORY)
        await daemon.ready(folder)
    except BaseException:
        await daemon.end()
        raise
    return daemon


def test_it_is_started_with_what_it_needs_and_ends(tmp_path: Path, pages: socket.socket) -> None:
    async def main() -> None:
        daemon = await start(
            tmp_path, pages, "ready(); say(' '.join(words)); os.fstat(int(of('--ps-socket')))"
        )
        await daemon.wait()
        await daemon.wait()
        assert await daemon.end() == 0

    anyio.run(main)
    said = (tmp_path / LOG).read_text().split()
    assert said[:3] == ["lazy-pages", "--images-dir", str(tmp_path / "standby")]
    assert "--page-server" in said
    assert not any(word in said for word in ("--address", "--port", "--daemon"))
    assert not (tmp_path / "lazy-pages.socket").exists()
    assert sorted(path.name for path in (tmp_path / "standby").iterdir()) == [
        "inventory.img",
        "pstree.img",
    ]


def test_it_waits_for_the_inventory(tmp_path: Path, pages: socket.socket) -> None:
    body = f"said = ready(); say(str(said == {INVENTORY!r} + b'the tree'))"

    async def told() -> None:
        daemon = begin(tmp_path, pages, "say('begun'); " + body)
        with anyio.fail_after(60):
            while not (tmp_path / "standby" / LOG).exists():
                await anyio.sleep(0.005)
        (tmp_path / "standby/pstree.img").write_bytes(b"the tree")
        await daemon.tell(INVENTORY)
        await daemon.ready(tmp_path)
        await daemon.wait()

    anyio.run(told)
    assert (tmp_path / LOG).read_text() == "begun\nTrue\n"


@pytest.mark.parametrize("told", [False, True])
def test_one_that_was_begun_is_killed(tmp_path: Path, pages: socket.socket, *, told: bool) -> None:
    async def main() -> None:
        daemon = begin(tmp_path, pages, "image('inventory.img'); signal.pause()")
        if told:
            await daemon.tell(INVENTORY)
        assert await daemon.end() == -signal.SIGKILL
        assert await daemon.end() == -signal.SIGKILL

    anyio.run(main)


def test_one_that_dies_while_it_waits(tmp_path: Path, pages: socket.socket) -> None:
    async def main() -> None:
        daemon = begin(tmp_path, pages, "say('Error (kerndat.c:1): no'); sys.exit(1)")
        await daemon.exited()
        await daemon.tell(INVENTORY)
        with pytest.raises(CriuDied, match="ended with status 1") as caught:
            await daemon.ready(tmp_path)
        assert caught.value.line == "Error (kerndat.c:1): no"
        assert caught.value.log_path == str(tmp_path / LOG)
        await daemon.end()

    anyio.run(main)


def test_a_failure_is_told_with_the_line_that_decided(tmp_path: Path, pages: socket.socket) -> None:
    async def main() -> CriuError:
        daemon = await start(
            tmp_path, pages, "ready(); say('Error (uffd.c:1): uffd: no room'); sys.exit(1)"
        )
        with pytest.raises(CriuError, match="lazy-pages daemon ended with status 1") as caught:
            await daemon.wait()
        return caught.value

    error = anyio.run(main)
    assert error.line == "Error (uffd.c:1): uffd: no room"
    assert error.host == "there"
    assert error.log_path == str(tmp_path / LOG)


def test_one_that_ends_before_it_is_ready(tmp_path: Path, pages: socket.socket) -> None:
    async def main() -> None:
        with pytest.raises(CriuDied, match="killed by SIGKILL"):
            await start(tmp_path, pages, "os.kill(os.getpid(), signal.SIGKILL)")

    anyio.run(main)


def test_one_that_never_gets_ready_is_ended(
    tmp_path: Path, pages: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazydaemon, "_START_S", 0.1)

    async def main() -> None:
        with pytest.raises(CriuTimeout, match=r"did not start within 0\.1 s"):
            await start(tmp_path, pages, "signal.pause()")

    anyio.run(main)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_one_that_runs_is_killed(tmp_path: Path, pages: socket.socket) -> None:
    async def main() -> None:
        daemon = await start(tmp_path, pages, "ready(); signal.pause()")
        assert await daemon.end() == -signal.SIGKILL
        assert await daemon.end() == -signal.SIGKILL

    anyio.run(main)


def test_there_is_no_criu(tmp_path: Path, pages: socket.socket) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(CriuNotFound, match="cannot be started"):
        LazyDaemon.begin([str(tmp_path / "none")], tmp_path, pages)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
