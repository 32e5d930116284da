"""Copies of another process's userfaultfds, of a process that stands for CRIU's daemon."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from phaul.criu.userfault import Userfaults

# UFFD_USER_MODE_ONLY: what the kernel lets anybody do.
BODY = """
import ctypes, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
opened = {}
for line in sys.stdin:
    word, name = line.split()
    if word == "open":
        opened[name] = libc.syscall(NUMBER, 1 | os.O_CLOEXEC)
        if opened[name] < 0:
            sys.exit(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
        fcntl.ioctl(opened[name], 0xC018AA3F, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
    else:
        os.close(opened.pop(name))
    print("done", flush=True)
"""
NUMBERS = {"x86_64": 323, "aarch64": 282}


class Daemon:
    def __init__(self) -> None:
        number = str(NUMBERS[os.uname().machine])
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", BODY.replace("NUMBER", number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pidfd = os.pidfd_open(self.process.pid)
        self.copies = Userfaults(self.process.pid, self.pidfd, 0)

    def tell(self, word: str, name: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{word} {name}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    found = Daemon()
    yield found
    found.end()
    found.copies.close()
    os.close(found.pidfd)


def ours() -> int:
    """How many userfaultfds this process has."""
    folder = "/proc/self/fd"
    return sum(
        "userfaultfd" in os.readlink(f"{folder}/{name}")  # noqa: PTH115
        for name in os.listdir(folder)  # noqa: PTH208
        if os.path.lexists(f"{folder}/{name}")
    )


def test_those_that_are_new_are_taken_and_those_that_were_closed_given_back(
    daemon: Daemon,
) -> None:
    for name in "ab":
        daemon.tell("open", name)
    daemon.copies.refresh()
    daemon.copies.refresh()
    assert len(daemon.copies) == ours() == 2
    # The same number, another descriptor.
    daemon.tell("close", "a")
    daemon.tell("open", "c")
    daemon.copies.refresh()
    assert len(daemon.copies) == ours() == 2
    daemon.tell("close", "b")
    daemon.copies.refresh()
    assert len(daemon.copies) == ours() == 1
    daemon.copies.close()
    daemon.copies.close()
    assert ours() == 0


def test_what_a_process_had_when_it_died_is_kept(daemon: Daemon) -> None:
    daemon.tell("open", "a")
    daemon.copies.refresh()
    daemon.process.kill()
    os.waitid(os.P_PID, daemon.process.pid, os.WEXITED | os.WNOWAIT)
    daemon.copies.refresh()
    assert ours() == 1, "of a zombie"
    daemon.process.wait(20)
    daemon.copies.refresh()
    assert len(daemon.copies) == ours() == 1, "of nobody"


def test_those_are_released_whose_memory_is_gone(daemon: Daemon) -> None:
    daemon.tell("open", "a")
    daemon.tell("open", "b")
    daemon.copies.refresh()
    assert daemon.copies.release_unused()
    assert len(daemon.copies) == 2
    daemon.end()
    assert not daemon.copies.release_unused()
    assert len(daemon.copies) == 0


class Noting:
    def __init__(self) -> None:
        self.held: set[int] = set()

    def took(self, inode: int, descriptor: int) -> None:
        assert os.fstat(descriptor).st_ino == inode
        self.held.add(inode)

    def gave(self, inode: int) -> None:
        self.held.remove(inode)


def test_a_mirror_is_told_of_each(daemon: Daemon) -> None:
    mirror = daemon.copies.mirror = Noting()
    daemon.tell("open", "a")
    daemon.tell("open", "b")
    daemon.copies.refresh()
    assert len(mirror.held) == 2
    daemon.tell("close", "a")
    daemon.copies.refresh()
    assert len(mirror.held) == 1
    daemon.copies.close()
    assert mirror.held == set()
