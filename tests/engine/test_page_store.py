"""Restored lazily from the page store: whole, whatever is done while memory is missing."""

import os
import select
import signal
from pathlib import Path

import anyio
import pytest

from phaul.destination.chain import Chain
from phaul.destination.lazy import Drained
from phaul.errors import CriuDied, CriuError, PageStoreError
from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.engine.lazy_restore import (
    SlowIndex,
    dump,
    end_tree,
    lazily,
    make_chain,
    restore_in_full,
)
from tests.victims.harness import Report, Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


def victims(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        "dirtier": ("--size-mb", 32, "--kinds", "private,shared,file", "--file", folder / "mapped"),
        "tree": ("--dir", folder),
        "pyheap.py": ("--size-mb", 16),
        "forker": ("--size-kb", 16384),
        "mapper": ("--empty-whole",),
    }


def moved(before: Victim, first: Report) -> Report:
    """The one copy is whole, and goes on."""
    (pid,) = copies_of(before.pid)
    again = Victim(pid, before.report_path)
    try:
        return counts_on(again, first.counter)
    finally:
        again.terminate(60 * SLOW)


def restore(before: Victim, images: Path, chained: bool, pause: float) -> Drained:
    async def main() -> Drained:
        last = images / "last"
        await dump(before.pid, last)
        assert copies_of(before.pid) == []
        index = SlowIndex()
        chain = Chain(index)
        for folder in make_chain(images, last) if chained else ():
            chain.add(folder)
        async with lazily(chain, last) as restored:
            index.pause = pause
            await restored.release()
            with anyio.fail_after(60 * SLOW):
                return await restored.pages.wait()

    return anyio.run(main)


@pytest.mark.parametrize("chained", [False, True], ids=["one level", "a chain"])
@pytest.mark.parametrize("name", ["dirtier", "tree", "pyheap.py", "forker", "mapper"])
def test_victim_is_whole(name: str, chained: bool, victim: StartVictim, tmp_path: Path) -> None:
    before = victim(name, *victims(tmp_path)[name])
    first = before.check(60 * SLOW)
    assert first.ok, first.problems
    drained = restore(before, tmp_path / "images", chained, 0.001)
    moved(before, first)
    if name == "mapper":
        assert drained.never_asked > 0, "it unmapped no memory that was not there yet"
    elif name == "forker":
        assert drained.served.pages > drained.pages, "no child needed memory that was not there yet"
    else:
        assert (drained.served.pages, drained.never_asked) == (drained.pages, 0)


def test_what_is_told_anew_is_good_for_a_restore_in_full(
    victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 16)
    first = before.check(60 * SLOW)
    last = tmp_path / "last"

    async def main() -> None:
        await dump(before.pid, last)
        chain = Chain()
        for folder in make_chain(tmp_path, last):
            chain.add(folder)
        chain.finish(last)
        chain.close()
        await restore_in_full(last)

    anyio.run(main)
    moved(before, first)


@pytest.mark.parametrize("guarded", [True, False], ids=["waits", "unguarded: reads zeros"])
def test_a_daemon_that_dies_is_told_and_memory_that_is_missing(
    guarded: bool, victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 8)
    at = int(before.check(60 * SLOW).data["private_at"]) + (7 << 20)
    index = SlowIndex()

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        async with lazily(Chain(index), tmp_path / "0") as restored:
            index.pause = 0.2
            await restored.release()
            os.kill(restored.pid, signal.SIGSTOP)
            os.kill(restored.pages.daemon.process.pid, signal.SIGKILL)
            with (
                anyio.fail_after(20 * SLOW),
                pytest.raises(CriuError, match="lazy-pages daemon was killed by SIGKILL"),
            ):
                await restored.pages.wait()
            if not guarded:
                restored.pages.daemon.userfaults.close()
            assert reads(restored.pid, at) == (None if guarded else bytes(4096))
            end_tree(restored.pid)

    anyio.run(main)


def reads(pid: int, address: int) -> bytes | None:
    """What another process finds in a page of memory; None if it waits for it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            os.write(writer, memory.read(4096))
        os._exit(0)
    os.close(writer)
    try:
        ready = select.select([reader], [], [], 1)[0]
        return os.read(reader, 4096) if ready else None
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_page_that_is_missing_is_told_and_its_process_waits(
    victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 8)
    index = SlowIndex()

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        async with lazily(Chain(index), tmp_path / "0") as restored:
            index.lacks = True
            await restored.release()
            with (
                anyio.fail_after(20 * SLOW),
                pytest.raises(PageStoreError, match=f"process {before.pid} is still on the source"),
            ):
                await restored.pages.wait()
            assert restored.pages.daemon.process.poll() is None
            assert copies_of(before.pid) == [restored.pid]
            end_tree(restored.pid)

    anyio.run(main)


def test_a_copy_that_is_given_up_ends_the_daemon(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 8)

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        async with lazily(Chain(), tmp_path / "0") as restored:
            await restored.operation.refuse()
            with (
                anyio.fail_after(20 * SLOW),
                pytest.raises(CriuError, match="closed the connection"),
            ):
                await restored.pages.wait()

    anyio.run(main)
    assert copies_of(before.pid) == []


def test_a_daemon_that_does_not_start_says_why(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 8)

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        (tmp_path / "0" / "pstree.img").write_bytes(b"")
        with pytest.raises(CriuDied, match="lazy-pages daemon ended with status 1") as caught:
            async with lazily(Chain(), tmp_path / "0"):
                pytest.fail("it started")
        assert "Unexpected EOF" in caught.value.line

    anyio.run(main)
