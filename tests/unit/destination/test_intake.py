"""The images of a round: as CRIU's page server writes them, and a hole is only what is there."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaul.criu.images import PageFlags, read_pagemap
from phaul.destination.intake import Intake, Level, spare_file
from phaul.errors import PageStoreError
from phaul.pages.receiving import Kind, Map

pytestmark = pytest.mark.usefixtures("no_leaks")
PAGE = 4096
ONE, SHARED = Map(Kind.PROCESS, 7), Map(Kind.SHARED, 9)


class Bytes:
    """A source that has as many as are asked for."""

    def fill(self, view: memoryview) -> None:
        view[:] = b"x" * len(view)

    def move(self, descriptor: int, offset: int, length: int) -> None:
        os.pwrite(descriptor, b"x" * length, offset)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Level]:
    """The level of a round that has the pages 1 to 4, of which 3 is only lazy."""
    (tmp_path / "0").mkdir()
    intake = Intake(tmp_path / "0", None)
    place = intake.open(ONE)
    place.add(PAGE, 2, PageFlags.PRESENT)
    place.add(3 * PAGE, 1, PageFlags.LAZY)
    place.add(4 * PAGE, 1, PageFlags.PRESENT | PageFlags.LAZY)
    place.file.take(Bytes(), 3 * PAGE)
    intake.finish()
    yield intake.level
    intake.close()
    intake.close()


def test_the_files(tmp_path: Path, first: Level) -> None:
    found = read_pagemap(tmp_path / "0/pagemap-7.img")
    assert found.pages_id == 1
    assert [(r.start // PAGE, r.pages, int(r.flags)) for r in found.ranges] == [
        (1, 2, 4),
        (3, 1, 2),
        (4, 1, 6),
    ]
    assert (tmp_path / "0/pages-1.img").read_bytes() == b"x" * 3 * PAGE


def test_a_chain(tmp_path: Path, first: Level) -> None:
    (tmp_path / "1").mkdir()
    intake = Intake(tmp_path / "1", first)
    assert intake.in_parent(ONE)
    assert not intake.in_parent(SHARED)
    intake.open(SHARED)
    intake.open(ONE).add(PAGE, 2, PageFlags.PARENT)
    intake.finish()
    intake.close()
    assert read_pagemap(tmp_path / "1/pagemap-shmem-9.img").ranges == ()
    assert read_pagemap(tmp_path / "1/pagemap-7.img").pages_id == 2
    (tmp_path / "2").mkdir()
    third = Intake(tmp_path / "2", intake.level)
    place = third.open(ONE)
    place.add(PAGE, 1, PageFlags.PARENT)  # through two rounds
    with pytest.raises(PageStoreError, match="are not"):
        place.add(4 * PAGE, 1, PageFlags.PARENT)  # the round before had given it up
    third.close()


@pytest.mark.parametrize("page", [0, 3, 5])
def test_a_hole_that_the_round_before_does_not_fill(
    tmp_path: Path, first: Level, page: int
) -> None:
    """Its pages were lost, as by a round that failed: nothing could be restored from that."""
    (tmp_path / "1").mkdir()
    intake = Intake(tmp_path / "1", first)
    with pytest.raises(PageStoreError, match="in the round before"):
        intake.open(ONE).add(page * PAGE, 1, PageFlags.PARENT)
    intake.close()


def test_what_is_out_of_order_or_twice(tmp_path: Path) -> None:
    intake = Intake(tmp_path, None)
    place = intake.open(ONE)
    place.add(2 * PAGE, 2, PageFlags.LAZY)
    with pytest.raises(PageStoreError, match="out of order"):
        place.add(3 * PAGE, 1, PageFlags.LAZY)
    with pytest.raises(PageStoreError, match="twice"):
        intake.open(ONE)
    with pytest.raises(PageStoreError, match="are not"):
        intake.open(SHARED).add(0, 1, PageFlags.PARENT)
    intake.close()


@pytest.mark.parametrize("room", [PAGE, 8 * PAGE])
def test_room_that_was_made_before(tmp_path: Path, room: int) -> None:
    """For the first process, and cut to what came; nothing of it is left where it is not used."""
    spare = spare_file(tmp_path)
    spare.grow(room)
    assert spare.capacity >= room
    intake = Intake(tmp_path, None, spare)
    assert intake.open(SHARED).file is not spare
    place = intake.open(ONE)
    assert place.file is spare
    place.file.take(Bytes(), 3 * PAGE)
    intake.finish()
    intake.close()
    assert (tmp_path / "pages-2.img").read_bytes() == b"x" * 3 * PAGE
    unused = Intake(tmp_path / "nowhere", None, spare_file(tmp_path))
    unused.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("pagemap-7.img", "pagemap-shmem-9.img", "pages-1.img", "pages-2.img"),
    ]
