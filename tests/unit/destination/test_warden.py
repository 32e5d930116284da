"""The warden: what it holds, and whom it ends."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaul.criu import userfault
from phaul.destination.warden import Warden, be_warden
from phaul.protocol.ownership import DestinationState
from tests.unit.destination.dead import left_behind

LIMIT = 20.0


class Pair:
    """A keeper's end, and a warden in a thread; of `incoming` the process runs, by its journal."""

    def __init__(self, base: Path) -> None:
        self.path = left_behind(base, DestinationState.RUNNING).path.parent
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.warden = Warden(self.sock)
        self.thread = threading.Thread(target=self._run, args=(theirs,))
        self.thread.start()

    def _run(self, theirs: socket.socket) -> None:
        with theirs:
            be_warden(theirs, self.path)

    def ends(self) -> None:
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    yield found
    found.sock.close()
    found.ends()


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe stands for a userfaultfd: its reader sees when nobody holds the other end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)


def is_held(reader: int) -> bool:
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True


def test_it_ends_with_its_keeper(pair: Pair, victim: "subprocess.Popen[bytes]") -> None:
    pair.warden.watch([victim.pid])
    pair.warden.released(True)
    pair.sock.close()
    pair.ends()
    assert victim.poll() is None
    assert not (pair.path / "KEEP").exists()


def test_it_lets_go_when_all_is_over(
    pair: Pair, pipe: tuple[int, int], victim: "subprocess.Popen[bytes]"
) -> None:
    reader, writer = pipe
    pair.warden.watch([victim.pid])
    pair.warden.took(7, writer)
    os.close(writer)
    assert is_held(reader)
    pair.warden.gave(7)
    pair.warden.over()
    pair.ends()
    assert not is_held(reader)
    assert victim.poll() is None


@pytest.mark.parametrize("released", [True, False])
def test_it_ends_the_tree_before_it_lets_go(
    pair: Pair,
    pipe: tuple[int, int],
    victim: "subprocess.Popen[bytes]",
    monkeypatch: pytest.MonkeyPatch,
    released: bool,
) -> None:
    reader, writer = pipe
    ended: list[bool] = []

    def used(_descriptor: int) -> bool:
        ended.append(victim.poll() is not None)
        return len(ended) < 2

    monkeypatch.setattr(userfault, "is_used", used)
    pair.warden.watch([victim.pid])
    pair.warden.took(7, writer)
    os.close(writer)
    pair.warden.released(True)
    pair.warden.released(released)
    pair.sock.close()
    victim.wait(LIMIT)
    pair.ends()
    assert ended == [True, True]
    assert not is_held(reader)
    assert (pair.path / "KEEP").exists() == released


@pytest.mark.parametrize("over", [False, True])
def test_a_daemon_does_not_outlive_its_keeper(
    pair: Pair, victim: "subprocess.Popen[bytes]", *, over: bool
) -> None:
    daemon = os.pidfd_open(victim.pid)
    pair.warden.began(daemon)
    os.close(daemon)
    if over:
        pair.warden.over()
    pair.sock.close()
    pair.ends()
    assert (victim.poll() if over else victim.wait(LIMIT)) == (None if over else -signal.SIGKILL)
