"""The page maps that are told anew, page by page against the rules; and the mappings they go by."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.images import PAGE_SIZE, Area, PageFlags, Pagemap, PageRange, read_areas
from phaul.criu.images.lazy import (
    LARGEST,
    encode_pagemap,
    for_daemon,
    for_restore,
    is_lazy,
    is_urgent,
    small_at_once,
)
from phaul.criu.images.memory import lazy_spans
from phaul.criu.images.pagemap import read_pagemap
from phaul.criu.messages import message_class
from phaul.errors import ImageError
from tests.unit.fake_criu import image

MEMORY = (0x54564319, 0x57492820)
PRIVATE_ANONYMOUS = 0x22
LOCKED, HUGETLB, SHARED = 0x2000, 0x40000, 0x21
REGULAR, VDSO, VVAR, GUARD = 1, 1 << 3, 1 << 12, 1 << 16

maps = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20), st.integers(0, 7)), max_size=12)
layouts = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30), st.booleans()), max_size=8)


def test_what_a_lazy_restore_begins_with() -> None:
    names = ["core-7.img", "inventory.img", "mm-7.img", "mountpoints-1.img", "pstree.img"]
    assert [name for name in names if is_urgent(name)] == [
        "inventory.img",
        "mm-7.img",
        "pstree.img",
    ]


def made(spans: list[tuple[int, int, int]]) -> Pagemap:
    ranges, at = [], 0
    for gap, pages, flags in spans:
        at += gap * PAGE_SIZE
        ranges.append(PageRange(at, pages, PageFlags(flags)))
        at += pages * PAGE_SIZE
    return Pagemap(3, tuple(ranges))


def areas_of(layout: list[tuple[int, int, bool]]) -> list[Area]:
    areas, at = [], 0
    for gap, pages, lazy in layout:
        at += gap * PAGE_SIZE
        end = at + pages * PAGE_SIZE
        areas.append(Area(at, end, PRIVATE_ANONYMOUS if lazy else SHARED, REGULAR))
        at = end
    return areas


def by_page(pagemap: Pagemap) -> dict[int, PageFlags]:
    return {
        found.start + number * PAGE_SIZE: found.flags
        for found in pagemap.ranges
        for number in range(found.pages)
    }


@given(maps, layouts)
def test_what_is_in_a_parent_becomes_lazy_where_it_may(
    spans: list[tuple[int, int, int]], layout: list[tuple[int, int, bool]]
) -> None:
    before, areas = made(spans), areas_of(layout)
    after = for_restore(before, lazy_spans(areas))
    lazy = {p for a in areas if a.may_be_lazy for p in range(a.start, a.end, PAGE_SIZE)}
    wanted = {
        page: flags | PageFlags.LAZY if flags is PageFlags.PARENT and page in lazy else flags
        for page, flags in by_page(before).items()
    }
    assert by_page(after) == wanted
    # Where each page lies in the pages file is as it was.
    assert after.present_pages == before.present_pages
    assert after.pages_id == before.pages_id


@given(maps, st.integers(0, 60))
def test_small_ranges_are_restored_at_once(spans: list[tuple[int, int, int]], most: int) -> None:
    before = made(spans)
    after, taken = small_at_once(before, most)
    changed = {p: f for p, f in by_page(before).items() if by_page(after)[p] != f}
    assert len(changed) == taken <= most
    assert set(changed.values()) <= {PageFlags.PRESENT | PageFlags.LAZY}
    assert {by_page(after)[page] for page in changed} <= {PageFlags.PRESENT}
    assert by_page(after).keys() == by_page(before).keys()
    assert after.pages_id == before.pages_id


def test_a_large_range_stays_lazy() -> None:
    large = Pagemap(1, (PageRange(0, 65, PageFlags.PRESENT | PageFlags.LAZY),))
    assert small_at_once(large, 1000) == (large, 0)


@given(maps)
def test_the_daemon_is_told_what_is_lazy_alone(spans: list[tuple[int, int, int]]) -> None:
    restore = made(spans)
    daemon = for_daemon(restore, 1)
    lazy = [page for page, flags in by_page(restore).items() if flags & PageFlags.LAZY]
    assert by_page(daemon) == dict.fromkeys(lazy, PageFlags.LAZY)
    assert all(is_lazy(found) for found in daemon.ranges)
    ends = {found.end for found in daemon.ranges}
    assert ends.isdisjoint(found.start for found in daemon.ranges), "neighbours are one range"


def test_the_daemon_is_told_no_range_that_its_numbers_cannot_hold() -> None:
    whole = PageRange(0x1000, 2 * LARGEST + 5, PageFlags.LAZY)
    told = for_daemon(Pagemap(1, (whole,)), 1).ranges
    assert [found.pages for found in told] == [LARGEST, LARGEST, 5]
    assert told[0].start == whole.start
    assert told[-1].end == whole.end
    assert LARGEST * PAGE_SIZE < 1 << 31


@given(maps, st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int, int]], pages_id: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pagemap-1.img"
    written = Pagemap(pages_id, made(spans).ranges)
    path.write_bytes(encode_pagemap(written))
    assert read_pagemap(path) == written


def test_both_formats_have_the_count() -> None:
    data = encode_pagemap(Pagemap(1, (PageRange(0x1000, 9, PageFlags.LAZY),)))
    entry = message_class("PagemapEntry")()
    entry.ParseFromString(data[-int.from_bytes(data[14:18], "little") :])
    assert (entry.compat_nr_pages, entry.nr_pages, entry.flags) == (9, 9, 2)


@pytest.mark.parametrize(
    ("flags", "status", "lazy"),
    [
        (PRIVATE_ANONYMOUS, REGULAR, True),
        (PRIVATE_ANONYMOUS | 0x100, REGULAR, True),  # a stack
        (PRIVATE_ANONYMOUS | LOCKED, REGULAR, False),
        (PRIVATE_ANONYMOUS | HUGETLB, REGULAR, False),
        (SHARED, REGULAR, False),
        (0x02, REGULAR, False),  # private, of a file
        (PRIVATE_ANONYMOUS, REGULAR | VDSO, False),
        (PRIVATE_ANONYMOUS, REGULAR | VVAR, False),
    ],
)
def test_what_may_be_lazy(flags: int, status: int, lazy: bool) -> None:
    assert Area(0, PAGE_SIZE, flags, status).may_be_lazy == lazy


def memory(*areas: Area) -> bytes:
    wire = message_class("Memory")()
    for area in areas:
        wire.vmas.add(start=area.start, end=area.end, flags=area.flags, status=area.status)
    return image(MEMORY, wire.SerializeToString())


def test_the_mappings_are_read_without_their_guards(tmp_path: Path) -> None:
    path = tmp_path / "mm-7.img"
    stack, heap = Area(0x1000, 0x9000, 0x22, 1), Area(0x9000, 0xA000, 0x22, 1)
    path.write_bytes(memory(stack, Area(0x1000, 0x2000, 0, GUARD), heap))
    assert read_areas(path) == (stack, heap)
    assert lazy_spans(read_areas(path)) == [(0x1000, 0xA000)]


@pytest.mark.parametrize(
    "data",
    [
        memory(Area(0x9000, 0xA000, 0x22, 1), Area(0x1000, 0x2000, 0x22, 1)),
        memory(Area(0x2000, 0x1000, 0x22, 1)),
        image(MEMORY),
        b"",
    ],
    ids=["out of order", "backwards", "no message", "empty"],
)
def test_what_is_no_memory_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mm-7.img"
    path.write_bytes(data)
    with pytest.raises(ImageError):
        read_areas(path)
