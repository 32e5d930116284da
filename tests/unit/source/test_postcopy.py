"""The source's end of a post-copy: what is given from where, and how each way of it ends."""

import os
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.errors import CriuError, OutcomeUnknown, PageStoreError
from phaul.pages.remote.link import Kind, Message
from phaul.source.postcopy import left_out
from tests.unit.source.handing import SERVE, Far, begun, killed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "small_pipes")]


def test_what_was_left_out_is_what_no_image_has(tmp_path: Path) -> None:
    ranges = [(0, 1, 4), (PAGE_SIZE, 2, 2), (3 * PAGE_SIZE, 1, 1), (9 * PAGE_SIZE, 1, 6)]
    found = Pagemap(1, tuple(PageRange(at, n, PageFlags(flags)) for at, n, flags in ranges))
    (tmp_path / "pagemap-7.img").write_bytes(encode_pagemap(found))
    (tmp_path / "pagemap-shmem-3.img").write_bytes(b"no page map of a process")
    places = left_out(tmp_path)
    assert places.total == 2
    assert places.number(7, PAGE_SIZE) == (0, 2)


async def test_the_memory_follows_from_criu_after_the_commit(
    tmp_path: Path, victim: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, victim, SERVE + "serve(9); end(True)") as post:
        far = Far.linked(post)
        with far.sock:
            # Nothing is mapped there in this tree: so it is seen that the tree is what is read.
            far.ask(victim.pid)
            assert await anyio.to_thread.run_sync(far.hear) == Message(Kind.LOST)
        with pytest.raises(PageStoreError, match="cannot be read"):
            await post.hand_over(lambda: killed(victim))
        assert victim.poll() is None
    async with begun(tmp_path, victim, SERVE + "serve(9); end(True)") as post:
        await post.hand_over(lambda: killed(victim))
        far = Far.linked(post)
        with far.sock:
            given = await anyio.to_thread.run_sync(far.gets, victim.pid, 0, 8)
            assert given == b"\x5a" * 8 * PAGE_SIZE
            far.say(Kind.DONE)
            with anyio.fail_after(20):
                await post.drained(20)
            assert far.hear().kind is Kind.DONE
        assert post.supply.given == 8


async def test_it_is_taken_back(tmp_path: Path, victim: "subprocess.Popen[bytes]") -> None:
    body = 'assert not hold("post-dump"); assert not hold("status-ready"); end(False)'
    async with begun(tmp_path, victim, body) as post:
        await post.refuse()
    assert victim.poll() is None


async def test_nothing_is_handed_over_by_a_criu_that_fails(
    tmp_path: Path, victim: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, victim, 'hold("post-dump"); end(False)') as post:
        with pytest.raises(CriuError, match="DUMP"):
            await post.hand_over(lambda: killed(victim))
    assert victim.poll() is None


async def test_a_tree_that_cannot_be_killed_is_not_served(
    tmp_path: Path, victim: "subprocess.Popen[bytes]"
) -> None:
    async def fail() -> None:
        raise OutcomeUnknown("it does not die")

    body = 'hold("post-dump"); hold("status-ready"); end(False)'
    async with begun(tmp_path, victim, body) as post:
        with pytest.raises(OutcomeUnknown, match="it does not die"):
            await post.hand_over(fail)
    assert victim.poll() is None


async def test_a_criu_that_dies_is_told_to_both(
    tmp_path: Path, victim: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, victim, SERVE + "serve(9)") as post:
        await post.hand_over(lambda: killed(victim))
        far = Far.linked(post)
        with far.sock:
            os.kill(post.held.worker.process.pid, signal.SIGKILL)
            with anyio.fail_after(20), pytest.raises(PageStoreError, match="the memory is lost"):
                await post.drained(20)
            assert far.hear().kind is Kind.LOST


async def test_a_destination_that_is_gone_is_not_waited_for_for_ever(
    tmp_path: Path, victim: "subprocess.Popen[bytes]"
) -> None:
    async with begun(tmp_path, victim, SERVE + "serve(9); end(True)") as post:
        await post.hand_over(lambda: killed(victim))
        with anyio.fail_after(20), pytest.raises(PageStoreError, match="destination was not there"):
            await post.drained(0.02)


@pytest.mark.parametrize("end", ["serve(9); end(False)", "pages.recv(32); sys.exit(3)"])
async def test_how_criu_ends_when_all_is_over_there_is_only_noted(
    end: str, tmp_path: Path, victim: "subprocess.Popen[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    async with begun(tmp_path, victim, SERVE + end) as post:
        await post.hand_over(lambda: killed(victim))
        far = Far.linked(post)
        with far.sock:
            far.say(Kind.DONE)
            with anyio.fail_after(20):
                await post.drained(20)
    assert "all memory is over there, but" in caplog.text
