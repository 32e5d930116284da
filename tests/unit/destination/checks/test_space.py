import os
from pathlib import Path

import pytest

from phaul.destination.checks import space
from phaul.protocol.preflight import Finding, ImagesNeed, Level
from tests.unit.destination.checks.conftest import FakeHost, only

BLOCK = 4096


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """All blocks of the file system, and those that are free."""
    sizes = [1000, 500]
    asked = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(asked(path))
        fields[1], fields[2], fields[4] = BLOCK, sizes[0], sizes[1]
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return sizes


def look(host: FakeHost, blocks: int) -> list[Finding]:
    return space.look([ImagesNeed(size=blocks * BLOCK)], host.context())


@pytest.mark.usefixtures("disk")
def test_it_fits(host: FakeHost) -> None:
    assert str(host.work) in only(look(host, 400), Level.OK, "space").what


@pytest.mark.usefixtures("disk")
def test_it_leaves_little(host: FakeHost) -> None:
    assert "under 10 %" in only(look(host, 401), Level.WARNING, "space").what
    only(look(host, 500), Level.WARNING, "space")


@pytest.mark.usefixtures("disk")
def test_it_does_not_fit(host: FakeHost) -> None:
    found = only(look(host, 501), Level.NO, "space")
    assert f"go to {host.work}, where 2.0 MiB are free" in found.what


def test_a_file_system_without_a_limit(host: FakeHost, disk: list[int]) -> None:
    disk[:] = [0, 0]
    only(look(host, 1000), Level.OK, "space")


@pytest.mark.usefixtures("disk")
def test_a_directory_that_is_still_to_be_made(host: FakeHost) -> None:
    host.work /= "a/b/c"
    only(look(host, 400), Level.OK, "space")


def test_memory_or_disk(host: FakeHost) -> None:
    device = host.work.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    host.mount("ext4", "/", device="8:1")
    assert not space.in_memory(host.context())
    host.mount("tmpfs", "/run", device=number)
    assert space.in_memory(host.context())
