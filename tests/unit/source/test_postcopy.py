"""The source's end of a post-copy: what is given from where, and how each way of it ends."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.errors import CriuError, OutcomeUnknown, PageStoreError
from phaul.pages.remote.link import SIZE, Kind, Message, decode
from phaul.source.postcopy import PostCopy, left_out
from tests.unit.source.handing import AT, SERVE, begun, killed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "small_pipes")]


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


class Far:
    """The destination's end of a link."""

    def __init__(self, post: PostCopy) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        post.supply.attach(theirs)

    def ask(self, pid: int, pages: int = 1) -> None:
        self.sock.sendall(Message(Kind.ASK, pid, AT, pages, urgent=True).encode())

    def hear(self) -> Message:
        return decode(self.sock.recv(SIZE, socket.MSG_WAITALL))

    def gets(self, pid: int, pages: int) -> bytes:
        self.ask(pid, pages)
        assert self.hear() == Message(Kind.PAGES, pid, AT, pages)
        return self.sock.recv(pages * PAGE_SIZE, socket.MSG_WAITALL)


def test_what_was_left_out_is_what_no_image_has(tmp_path: Path) -> None:
    ranges = [(0, 1, 4), (PAGE_SIZE, 2, 2), (3 * PAGE_SIZE, 1, 1), (9 * PAGE_SIZE, 1, 6)]
    found = Pagemap(1, tuple(PageRange(at, n, PageFlags(flags)) for at, n, flags in ranges))
    (tmp_path / "pagemap-7.img").write_bytes(encode_pagemap(found))
    (tmp_path / "pagemap-shmem-3.img").write_bytes(b"no page map of a process")
    places = left_out(tmp_path)
    assert places.total == 2
    assert places.number(7, PAGE_SIZE) == (0, 2)


async def test_the_memory_follows_from_criu_after_the_commit(
    tmp_path: Path, tree: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, tree, SERVE + "serve(9); end(True)") as post:
        far = Far(post)
        with far.sock:
            # Nothing is mapped there in this tree: so it is seen that the tree is what is read.
            far.ask(tree.pid)
            assert await anyio.to_thread.run_sync(far.hear) == Message(Kind.LOST)
        with pytest.raises(PageStoreError, match="cannot be read"):
            await post.hand_over(lambda: killed(tree))
        assert tree.poll() is None
    async with begun(tmp_path, tree, SERVE + "serve(9); end(True)") as post:
        await post.hand_over(lambda: killed(tree))
        far = Far(post)
        with far.sock:
            assert await anyio.to_thread.run_sync(far.gets, tree.pid, 8) == b"\x5a" * 8 * PAGE_SIZE
            far.sock.sendall(Message(Kind.DONE).encode())
            with anyio.fail_after(20):
                await post.drained(20)
            assert far.hear().kind is Kind.DONE
        assert post.supply.given == 8


async def test_it_is_taken_back(tmp_path: Path, tree: "subprocess.Popen[bytes]") -> None:
    body = 'assert not hold("post-dump"); assert not hold("status-ready"); end(False)'
    async with begun(tmp_path, tree, body) as post:
        await post.refuse()
    assert tree.poll() is None


async def test_nothing_is_handed_over_by_a_criu_that_fails(
    tmp_path: Path, tree: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, tree, 'hold("post-dump"); end(False)') as post:
        with pytest.raises(CriuError, match="DUMP"):
            await post.hand_over(lambda: killed(tree))
    assert tree.poll() is None


async def test_a_tree_that_cannot_be_killed_is_not_served(
    tmp_path: Path, tree: "subprocess.Popen[bytes]"
) -> None:
    async def fail() -> None:
        raise OutcomeUnknown("it does not die")

    body = 'hold("post-dump"); hold("status-ready"); end(False)'
    async with begun(tmp_path, tree, body) as post:
        with pytest.raises(OutcomeUnknown, match="it does not die"):
            await post.hand_over(fail)
    assert tree.poll() is None


async def test_a_criu_that_dies_is_told_to_both(
    tmp_path: Path, tree: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, tree, SERVE + "serve(9)") as post:
        await post.hand_over(lambda: killed(tree))
        far = Far(post)
        with far.sock:
            os.kill(post.held.worker.process.pid, signal.SIGKILL)
            with anyio.fail_after(20), pytest.raises(PageStoreError, match="the memory is lost"):
                await post.drained(20)
            assert far.hear().kind is Kind.LOST


async def test_a_destination_that_is_gone_is_not_waited_for_for_ever(
    tmp_path: Path, tree: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, tree, SERVE + "serve(9); end(True)") as post:
        await post.hand_over(lambda: killed(tree))
        with anyio.fail_after(20), pytest.raises(PageStoreError, match="destination was not there"):
            await post.drained(0.02)


@pytest.mark.parametrize("end", ["serve(9); end(False)", "pages.recv(32); sys.exit(3)"])
async def test_how_criu_ends_when_all_is_over_there_is_only_noted(
    end: str, tmp_path: Path, tree: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    async with begun(tmp_path, tree, SERVE + end) as post:
        await post.hand_over(lambda: killed(tree))
        far = Far(post)
        with far.sock:
            far.sock.sendall(Message(Kind.DONE).encode())
            with anyio.fail_after(20):
                await post.drained(20)
    assert "all memory is over there, but" in caplog.text
