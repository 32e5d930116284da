"""A chain of images on the disk: what is indexed, what is told anew, what is refused."""

import os
from pathlib import Path

import pytest

from phaul.criu.images import PAGE_SIZE, PageFlags, Pagemap, PageRange, read_pagemap
from phaul.criu.images.lazy import encode_pagemap
from phaul.criu.messages import message_class
from phaul.destination.chain import Chain, needed
from phaul.errors import ImageError
from phaul.pages.store import Missing, Piece
from tests.unit.fake_criu import image

PARENT, LAZY, PRESENT = PageFlags.PARENT, PageFlags.LAZY, PageFlags.PRESENT
ANONYMOUS, OF_A_FILE = 0x22, 0x02


def write_round(folder: Path, *ranges: tuple[int, int, PageFlags]) -> Path:
    folder.mkdir()
    pagemap = Pagemap(1, tuple(PageRange(page * PAGE_SIZE, n, f) for page, n, f in ranges))
    (folder / "pagemap-7.img").write_bytes(encode_pagemap(pagemap))
    (folder / "pagemap-shmem-12345.img").write_bytes(b"not of a process")
    (folder / "pages-1.img").write_bytes(bytes(pagemap.present_pages * PAGE_SIZE))
    return folder


def write_metadata(folder: Path) -> None:
    for name in ("inventory.img", "pstree.img"):
        (folder / name).write_bytes(b"metadata")
    wire = message_class("Memory")()
    wire.vmas.add(start=0, end=8 * PAGE_SIZE, flags=ANONYMOUS, status=1)
    wire.vmas.add(start=8 * PAGE_SIZE, end=16 * PAGE_SIZE, flags=OF_A_FILE, status=1)
    (folder / "mm-7.img").write_bytes(image((0x54564319, 0x57492820), wire.SerializeToString()))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    found = Chain()
    found.add(write_round(tmp_path / "0", (0, 16, LAZY | PRESENT)))
    found.add(write_round(tmp_path / "1", (0, 4, PARENT), (4, 2, LAZY | PRESENT), (6, 10, PARENT)))
    return found


def test_the_final_dump_is_told_anew_and_for_the_daemon(chain: Chain, tmp_path: Path) -> None:
    own = (
        (0, 1, LAZY | PRESENT),
        (1, 1, LAZY | PRESENT),
        (2, 12, PARENT),
        (14, 2, PRESENT),
        (16, 3, LAZY),
    )
    last = write_round(tmp_path / "2", *own)
    write_metadata(last)
    daemon = tmp_path / "lazy"
    daemon.mkdir()
    assert needed(last) == {"inventory.img", "mm-7.img", "pstree.img"}
    chain.finish(last, daemon)
    told = [
        (0, 1, PRESENT),
        (1, 1, LAZY | PRESENT),
        (2, 6, PARENT | LAZY),
        (8, 6, PARENT),
        (14, 2, PRESENT),
        (16, 3, LAZY),
    ]
    assert by_number(last) == told
    assert by_number(daemon) == [(1, 7, LAZY), (16, 3, LAZY)]
    assert chain.lazy == {7: ((PAGE_SIZE, 1), (2 * PAGE_SIZE, 6), (16 * PAGE_SIZE, 3))}
    assert chain.elsewhere == {7: ((16 * PAGE_SIZE, 3),)}
    assert sorted(path.name for path in daemon.iterdir()) == [
        "mm-7.img",
        "pagemap-7.img",
        "pages-1.img",
    ]
    assert chain.index.find(7, 0, 9) == Piece(2, 0, 1)
    assert chain.index.find(7, 2 * PAGE_SIZE, 9) == Piece(0, 2 * PAGE_SIZE, 2)
    assert chain.index.find(7, 4 * PAGE_SIZE, 9) == Piece(1, 0, 2)
    chain.close()
    chain.close()


def by_number(folder: Path) -> list[tuple[int, int, PageFlags]]:
    ranges = read_pagemap(folder / "pagemap-7.img").ranges
    return [(found.start // PAGE_SIZE, found.pages, found.flags) for found in ranges]


def test_memory_that_was_left_on_the_source_is_known_to_be_there(tmp_path: Path) -> None:
    chain = Chain()
    chain.add(write_round(tmp_path / "0", (0, 1, LAZY)))
    assert chain.index.find(7, 0, 1) == Missing(1, elsewhere=True)
    chain.close()


@pytest.mark.parametrize("size", [0, PAGE_SIZE, 3 * PAGE_SIZE])
def test_a_pages_file_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    folder = write_round(tmp_path / "0", (0, 2, PRESENT))
    os.truncate(folder / "pages-1.img", size)
    chain = Chain()
    with pytest.raises(ImageError, match=f"{size} bytes, expected 8192"):
        chain.add(folder)
    chain.close()


@pytest.mark.parametrize("kind", ["nothing", "a link", "a FIFO"])
def test_a_pages_file_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_round(tmp_path / "0", (0, 2, PRESENT))
    path = folder / "pages-1.img"
    whole = path.rename(tmp_path / "elsewhere")
    if kind == "a link":
        path.symlink_to(whole)
    elif kind == "a FIFO":
        os.mkfifo(path)
    chain = Chain()
    with pytest.raises(ImageError):
        chain.add(folder)
    chain.close()
