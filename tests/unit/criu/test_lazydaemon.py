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
def say(line):
    with open(of("--work-dir") + "/" + of("--log-file"), "a") as log:
        log.write(line + "\\n")
def ready():
    open(of("--work-dir") + "/lazy-pages.socket", "w").close()
    os.write(int(of("--status-fd")), b"\\0")
"""


@pytest.fixture
def pages() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs


def program(folder: Path, body: str) -> list[str]:
    path = folder / "criu.py"
    path.write_text(HEAD + body)
    return [sys.executable, "-S", str(path)]


async def start(folder: Path, pages: socket.socket, body: str) -> LazyDaemon:
    images = folder / "images"
    return await LazyDaemon.start(program(folder, body), images, folder, pages, host="there")


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
    assert said[:3] == ["lazy-pages", "--images-dir", str(tmp_path / "images")]
    assert "--page-server" in said
    assert not any(word in said for word in ("--address", "--port", "--daemon"))
    assert not (tmp_path / "lazy-pages.socket").exists()


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
    (tmp_path / LOG).write_text("Error (old.c:1): of a run before")

    async def main() -> None:
        with pytest.raises(CriuTimeout, match=r"did not start within 0\.1 s") as caught:
            await start(tmp_path, pages, "signal.pause()")
        assert caught.value.line == ""

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
    async def main() -> None:
        with pytest.raises(CriuNotFound, match="cannot be started"):
            await LazyDaemon.start([str(tmp_path / "none")], tmp_path, tmp_path, pages)

    anyio.run(main)
