"""The driver against the real CRIU: each request, and the readers on what it wrote."""

import socket
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import OLDEST, Engine
from phaul.criu.images import read_dump_stats, read_inventory, read_pagemap
from phaul.criu.operation import Operation, directory_fd
from phaul.criu.rpc import Request, RequestType, Stage
from phaul.criu.workers import Workers
from phaul.destination.reception import Reception
from phaul.errors import CriuError, FeatureMissing
from phaul.storage.workdir import ImagesDir
from tests.engine.conftest import SLOW, StartVictim, criu_processes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

ENGINE = Engine()


def test_version_features_and_check() -> None:
    async def main() -> None:
        async with Workers(ENGINE) as workers:
            facts = await workers.examine()
            assert facts == await workers.examine(), "a worker can be asked again"
        assert facts.version >= OLDEST
        assert facts.mem_track == has_soft_dirty()

    anyio.run(main)


def has_soft_dirty() -> bool:
    """Whether the kernel marks pages as dirty: bit 55 of a page map entry, after a write."""
    Path("/proc/self/clear_refs").write_text("4")
    page = bytearray(4096)
    page[0] = 1
    maps = Path("/proc/self/maps").read_text().splitlines()
    start = next(int(line.split("-")[0], 16) for line in maps if "[stack]" in line)
    end = next(int(line.split("-")[1].split()[0], 16) for line in maps if "[stack]" in line)
    with open("/proc/self/pagemap", "rb") as file:  # noqa: PTH123
        file.seek(start // 4096 * 8)
        entries = file.read((end - start) // 4096 * 8)
    return any(
        int.from_bytes(entries[at : at + 8], "little") >> 55 & 1 for at in range(0, len(entries), 8)
    )


def test_pre_dump_is_refused_where_dirty_memory_is_not_tracked() -> None:
    async def main() -> None:
        async with Workers(ENGINE) as workers:
            facts = await workers.examine()
        if facts.mem_track:
            facts.require_mem_track("source")
        else:
            with pytest.raises(FeatureMissing, match="soft-dirty"):
                facts.require_mem_track("source")

    anyio.run(main)


def test_cpu_of_this_host_is_compatible_with_itself(tmp_path: Path) -> None:
    async def main() -> None:
        await ENGINE.dump_cpuinfo(tmp_path)
        assert (tmp_path / "cpuinfo.img").exists()
        await ENGINE.check_cpuinfo(tmp_path)
        (tmp_path / "cpuinfo.img").unlink()
        with pytest.raises(CriuError, match="CPUINFO_CHECK"):
            await ENGINE.check_cpuinfo(tmp_path)

    anyio.run(main)


def test_dump_held_looked_at_and_refused(
    victim: StartVictim, memory: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    pages = 2048
    dirtier = victim("dirtier", "--size-mb", pages * 4096 >> 20, "--rate", 0)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    stages: list[Stage | None] = []

    async def main() -> None:
        ours, theirs = (sock.fileno() for sock in memory)
        async with Workers(ENGINE) as workers:
            wide = (await workers.examine()).version.wide_page_server
        reception = Reception.start(
            ImagesDir(there, None), theirs, None, None, wide=wide, host="destination"
        )
        async with ENGINE.worker(pass_fds=(ours,)) as worker:
            with directory_fd(here) as descriptor:
                request = Request(
                    RequestType.DUMP,
                    images_dir_fd=descriptor,
                    pid=dirtier.pid,
                    memory_fd=ours,
                    notify=True,
                    leave_running=True,
                    log_file="dump.log",
                )
                operation = Operation(worker, request, here / "dump.log", 60 * SLOW)

                async def note(notification: object) -> None:
                    stages.append(getattr(notification, "stage", None))

                operation.handler = note
                await operation.begin()
                await operation.until(Stage.POST_DUMP)
            with anyio.fail_after(60 * SLOW):
                await reception.wait()
            reception.close()
            reception.intake.close()
            assert dirtier.alive()
            await operation.release()
            await operation.finish()

    anyio.run(main)
    assert stages[0] is Stage.PRE_DUMP
    inventory = read_inventory(here / "inventory.img")
    assert inventory.img_version >= 1
    pagemap = read_pagemap(there / f"pagemap-{dirtier.pid}.img")
    size = (there / f"pages-{pagemap.pages_id}.img").stat().st_size
    assert pagemap.present_pages * 4096 == size
    stats = read_dump_stats(here / "stats-dump")
    assert stats.pages_written == pagemap.present_pages >= pages
    assert stats.frozen_us > 0
    assert dirtier.check(60 * SLOW).ok
    assert criu_processes() == []
