"""Where a lazy restore is worth its while; a keeper that is of no use."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.destination.gain import worth
from phaul.destination.memory import LazyMemory, Mode
from tests.unit.destination.test_chain import LAZY, PRESENT, write_metadata, write_round
from tests.unit.destination.test_keeper import DAEMON

pytestmark = pytest.mark.anyio


@given(st.integers(0, 1 << 40), st.floats(1, 1e12), st.integers(0, 1 << 50))
def test_more_is_not_less_worth(pages: int, rate: float, available: int) -> None:
    if worth(pages, rate, None):
        assert worth(pages + 1, rate, None)
        assert worth(pages, rate / 2, None)
    if worth(pages, rate, available):
        assert pages * 4096 <= available
        assert worth(pages, rate, available + 1)


def test_a_small_process_is_restored_in_full() -> None:
    assert not worth(1000, 1e9, 1 << 40)
    assert worth(1 << 18, 1e9, 1 << 40)
    assert not worth(1 << 18, 1e9, 1 << 30)


async def begin(
    tmp_path: Path,
    tasks: anyio.abc.TaskGroup,
    mode: Mode = "lazy",
    program: Sequence[str] = ("/nowhere/criu",),
) -> LazyMemory:
    found = LazyMemory.begin(tmp_path, program, tasks, mode=mode, rate=1.0, wide=True, host="here")
    assert found is not None
    return found


async def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        found = await begin(tmp_path, tasks)
        await found.ready(tmp_path / "images/0")  # there are none
    assert found.keeper is not None
    assert not found.keeper.alive()
    assert list(tmp_path.iterdir()) == []


async def test_one_that_has_just_begun_has_ended_with_its_close(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        found = await begin(tmp_path, tasks)
        await found.close()
        assert found.keeper is not None
        assert not found.keeper.alive()


async def test_nobody_waits_for_one_that_has_just_begun(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks:
        found = await begin(tmp_path, tasks, "auto")
        assert not await found.ready(tmp_path / "images/0")


async def test_one_that_dies_costs_only_the_gain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        found = await begin(tmp_path, tasks)
        with anyio.fail_after(60):
            while found.keeper is None:
                await anyio.sleep(0.01)
        found.keeper.signal(signal.SIGKILL)
        assert not await found.ready(tmp_path / "images/0")
    assert "in full: here: the keeper of the memory has ended" in caplog.text


async def test_one_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with anyio.create_task_group() as tasks:
        found = LazyMemory.begin(
            tmp_path, ["criu"], tasks, mode="auto", rate=1.0, wide=True, host="here"
        )
    assert found is None


async def test_one_that_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    async with anyio.create_task_group() as tasks:
        found = await begin(tmp_path, tasks)
        found.written(tmp_path / "images/0")
        assert not await found.ready(tmp_path / "images/0")


@pytest.fixture
async def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return write_round(tmp_path / "images/0", (0, 70, LAZY | PRESENT))


async def began(tmp_path: Path, tasks: anyio.abc.TaskGroup, images: Path) -> LazyMemory:
    """One that was shown the final dump's images, and has what it needs of them."""
    found = await begin(tmp_path, tasks, program=["/bin/sh", "-c", DAEMON])
    found.written(images)
    with anyio.fail_after(60):
        await found.here.wait()
    write_metadata(images)
    for name in ("inventory.img", "mm-7.img", "pstree.img"):
        assert not (images / "lazy-pages.socket").exists()
        await found.arrived(images / name)
    with anyio.fail_after(60):
        while not (images / "lazy-pages.log").exists():
            await anyio.sleep(0.005)
    return found


async def test_it_gets_ready_beside_the_arrival_of_images(tmp_path: Path, images: Path) -> None:
    async with anyio.create_task_group() as tasks:
        found = await began(tmp_path, tasks, images)
        await found.arrived(images / "core-7.img")
        assert await found.ready(images)
        await found.close()
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


async def test_one_that_dies_when_it_was_ready(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        found = await began(tmp_path, tasks, images)
        assert found.keeper is not None
        handle = os.pidfd_open(found.keeper.pid)
        found.keeper.signal(signal.SIGKILL)
        with anyio.fail_after(60):
            await anyio.wait_readable(handle)  # its last thread has ended: the socket is closed
        os.close(handle)
        assert not await found.ready(images)
    assert "in full: here: the keeper of the memory has ended" in caplog.text
