"""A cutover that leaves the memory behind: what becomes of the tree where each step of it fails."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phaul.config import Config
from phaul.criu.engine import Facts
from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange
from phaul.criu.images.lazy import encode_pagemap
from phaul.criu.rpc import Version
from phaul.errors import CutoverFailed, OutcomeUnknown
from phaul.report import Way
from phaul.source.cutover import Cutover, Release
from phaul.source.ownership import Ownership
from phaul.source.session import SourceSession
from tests.unit.conftest import dead, running
from tests.unit.lazy_criu import lazy_criu
from tests.unit.source.stopping import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "small_pipes")]
PAGES = 8
HELD = """
import shutil
shutil.copy({pagemap!r}, {images!r})
assert hold("post-dump")
"""
SERVES = HELD + 'assert hold("status-ready"); pages.recv(9); end(True)'


class Far:
    """The caller of a session: it restores at once, and says when it was asked to let go."""

    def __init__(self, pid: int, fails: Exception | None = None) -> None:
        self.pid = pid
        self.fails = fails
        self.follows = 0
        self.released: list[bool] = []

    async def start_iteration(self) -> None:
        raise AssertionError("no round comes")

    stop_iteration = start_iteration

    async def follow(self) -> None:
        self.follows += 1

    async def dump_copy_restore(self, cutover: Cutover) -> Release:
        held = await cutover.dump()
        assert not list(held.images_dir.glob("pages-*.img"))
        if self.fails is not None:
            raise self.fails
        return self.release

    async def release(self) -> None:
        self.released.append(dead(self.pid))


Begin = Callable[..., tuple[SourceSession, Far]]


@pytest.fixture
def begin(tmp_path: Path, victim: "subprocess.Popen[bytes]") -> Iterator[Begin]:
    ours, theirs = socket.socketpair()
    work = tmp_path / "work"
    pagemap = tmp_path / f"pagemap-{victim.pid}.img"
    left = PageRange(16 * PAGE_SIZE, PAGES, PageFlags.LAZY)
    pagemap.write_bytes(encode_pagemap(Pagemap(1, (left,))))

    def made(body: str, fails: Exception | None = None) -> tuple[SourceSession, Far]:
        script = body.format(pagemap=str(pagemap), images=str(work / "0"))
        engine = lazy_criu(tmp_path, script)
        far = Far(victim.pid, fails)
        config = Config(
            memory_fd=ours.fileno(),
            work_dir=work,
            pid=victim.pid,
            criu=engine.program,
            second_lock=False,
        )
        facts = Facts(Version(4, 2, 1), mem_track=False, lazy_pages=True)
        session = SourceSession(
            config, far, far, facts=facts, follow=far.follow, post_copy=True, host="here"
        )
        return session, far

    with ours, theirs:
        yield made


async def test_the_tree_is_gone_before_the_copy_runs_and_its_memory_is_here(begin: Begin) -> None:
    session, far = begin(SERVES)
    try:
        report = await session.migrate()
        assert report.way is Way.POST_COPY
        assert (far.follows, far.released) == (1, [True])
        assert session.post is not None
        assert session.post.supply.total == PAGES
    finally:
        await session.close()


async def test_what_fails_over_there_lets_it_run_on(
    begin: Begin, victim: "subprocess.Popen[bytes]"
) -> None:
    session, far = begin(HELD.replace("assert hold", "end(hold") + ")", ValueError("no room"))
    with pytest.raises(CutoverFailed, match="no room"):
        await session.migrate()
    assert session.post is None
    assert far.released == []
    assert running(victim.pid)


async def test_a_criu_that_ends_before_the_kill_costs_nothing(
    begin: Begin, victim: "subprocess.Popen[bytes]"
) -> None:
    session, far = begin(HELD + "sys.exit(3)")
    with pytest.raises(CutoverFailed, match="did not give the process up") as caught:
        await session.migrate()
    assert f"PID {victim.pid}" in caught.value.fate
    assert far.released == []
    assert running(victim.pid)


async def test_one_that_ends_after_it_has_the_memory_with_it(
    begin: Begin,
    victim: "subprocess.Popen[bytes]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said that the process is lost: no host has all of it any more."""
    session, far = begin(
        HELD
        + """
answer = message_class("Response")(type=6, success=True)
answer.notify.script = "status-ready"
rpc.send(answer.SerializeToString())
rpc.shutdown(socket.SHUT_RDWR)  # it is not going to be told to go on
open("DEAF", "w")
""".replace("DEAF", str(tmp_path / "deaf"))
    )
    kill = Ownership.kill

    async def killed(self: Ownership) -> None:
        await kill(self)
        until((tmp_path / "deaf").exists)

    monkeypatch.setattr(Ownership, "kill", killed)
    with pytest.raises(OutcomeUnknown, match="its memory is lost") as caught:
        await session.migrate()
    assert "lost" in caught.value.fate
    assert far.released == []
    assert dead(victim.pid)
