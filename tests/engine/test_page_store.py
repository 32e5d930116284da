"""Restored lazily from the page store: whole, whatever is done while memory is missing."""

import os
import signal
from io import RawIOBase
from pathlib import Path

import anyio
import pytest

from phaul.destination.chain import Chain
from phaul.destination.lazy import Drained
from phaul.errors import CriuDied, CriuError, PageStoreError
from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.engine.lazy_restore import (
    Restored,
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
        (tmp_path / "standby").mkdir()
        chain.finish(last, tmp_path / "standby")
        chain.close()
        await restore_in_full(last)

    anyio.run(main)
    moved(before, first)


async def kill_daemon(restored: Restored) -> None:
    os.kill(restored.pages.daemon.process.pid, signal.SIGKILL)
    with (
        anyio.fail_after(20 * SLOW),
        pytest.raises(CriuError, match="lazy-pages daemon was killed by SIGKILL"),
    ):
        await restored.pages.wait()


def test_a_daemon_that_dies_is_told_and_its_process_waits(
    victim: StartVictim, tmp_path: Path
) -> None:
    before = victim("dirtier", "--size-mb", 8)
    index = SlowIndex()

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        async with lazily(Chain(index), tmp_path / "0") as restored:
            index.pause = 0.1
            await restored.release()
            await kill_daemon(restored)
            with anyio.fail_after(20 * SLOW):
                while Path(f"/proc/{restored.pid}/wchan").read_text() != "handle_userfault":
                    await anyio.sleep(0.01)
            end_tree(restored.pid)

    anyio.run(main)


def is_missing(memory: RawIOBase, page: int) -> bool:
    """Whether a page is not there yet: then who reads it from outside gets an error."""
    memory.seek(page)
    try:
        return memory.read(4096) is None
    except OSError:
        return True


def test_without_a_guard_memory_reads_as_zeros(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 8)
    at = int(before.check(60 * SLOW).data["private_at"])
    index = SlowIndex()

    async def main() -> None:
        await dump(before.pid, tmp_path / "0")
        async with lazily(Chain(index), tmp_path / "0") as restored:
            index.pause = 0.1
            await restored.release()
            os.kill(restored.pid, signal.SIGSTOP)
            await kill_daemon(restored)
            with Path(f"/proc/{restored.pid}/mem").open("rb", buffering=0) as memory:
                page = next(p for p in range(at, at + (8 << 20), 4096) if is_missing(memory, p))
                restored.pages.daemon.userfaults.close()
                memory.seek(page)
                assert memory.read(4096) == bytes(4096)
            end_tree(restored.pid)

    anyio.run(main)


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
            with anyio.fail_after(20 * SLOW):
                while copies_of(before.pid):
                    await anyio.sleep(0.01)

    anyio.run(main)


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
