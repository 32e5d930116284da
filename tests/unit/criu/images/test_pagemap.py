import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.images import PageRange, read_pagemap
from phaul.criu.images.pagemap import PAGE_SIZE, PageFlags
from phaul.criu.messages import message_class
from phaul.errors import ImageError
from tests.unit.fake_criu import image

MAGICS = (0x54564319, 0x56084025)
PRESENT = PageFlags.PRESENT


def head(pages_id: int = 1) -> bytes:
    data: bytes = message_class("PagemapHead")(pages_id=pages_id).SerializeToString()
    return data


def entry(start: int, compat: int = 0, **fields: object) -> bytes:
    """An entry; a count from CRIU 4.2 on is `nr_pages`."""
    wire = message_class("PagemapEntry")(vaddr=start, compat_nr_pages=compat, **fields)
    data: bytes = wire.SerializeToString()
    return data


def pagemap(*entries: bytes) -> bytes:
    return image(MAGICS, head(), *entries)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pagemap") / "pagemap-1.img"


def ranges(path: Path, *entries: bytes) -> tuple[PageRange, ...]:
    path.write_bytes(pagemap(*entries))
    return read_pagemap(path).ranges


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100), st.integers(0, 7)), max_size=20)


@given(spans=spans, new=st.booleans(), pages_id=st.integers(0, 2**32 - 1))
def test_goes_round(
    path: Path, spans: list[tuple[int, int, int]], new: bool, pages_id: int
) -> None:
    expected, entries, at = [], [], 0
    for gap, pages, flags in spans:
        at += gap * PAGE_SIZE
        expected.append(PageRange(at, pages, PageFlags(flags)))
        count = {"nr_pages": pages} if new else {"compat": pages}
        entries.append(entry(at, flags=flags, **count))
        at += pages * PAGE_SIZE
    path.write_bytes(image(MAGICS, head(pages_id), *entries))
    found = read_pagemap(path)
    assert found.ranges == tuple(expected)
    assert found.pages_id == pages_id
    assert found.present_pages == sum(p for _, p, flags in spans if flags & 4)


def test_before_there_were_flags(path: Path) -> None:
    found = ranges(path, entry(0, 1), entry(4096, 1, in_parent=True))
    assert [r.flags for r in found] == [PRESENT, PageFlags.PARENT]


def test_a_new_count_wins_over_the_old(path: Path) -> None:
    (found,) = ranges(path, entry(0, 1, nr_pages=2**32 + 1, flags=4))
    assert found.pages == 2**32 + 1


@pytest.mark.parametrize(
    "wrong",
    [
        [entry(0, 0)],
        [entry(0, 5, nr_pages=0)],
        [entry(1, 1)],
        [entry(2**64 - PAGE_SIZE, 2)],
        [entry(0, 0, nr_pages=2**64 - 1)],
        [entry(PAGE_SIZE, 1), entry(0, 1)],
        [entry(0, 2), entry(PAGE_SIZE, 1)],
        [entry(0, 1), entry(0, 1)],
        [b""],
        [b"\xff"],
    ],
)
def test_what_is_no_range(path: Path, wrong: list[bytes]) -> None:
    with pytest.raises(ImageError, match=r"pagemap-1\.img"):
        ranges(path, *wrong)


def test_up_to_the_very_end(path: Path) -> None:
    assert ranges(path, entry(2**64 - PAGE_SIZE, 1))[0].end == 2**64


def test_no_head(path: Path) -> None:
    path.write_bytes(image(MAGICS))
    with pytest.raises(ImageError, match="no head"):
        read_pagemap(path)


VALID = pagemap(
    entry(0, 1), entry(2 * PAGE_SIZE, 0, nr_pages=4, flags=4), entry(2**40, 1, in_parent=True)
)


def readable(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        found = read_pagemap(path)
    except ImageError:
        return False
    end = 0
    for r in found.ranges:
        assert end <= r.start < r.end <= 2**64
        end = r.end
    return True


@given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda d: pagemap(d)))
def test_any_bytes(path: Path, data: bytes) -> None:
    readable(path, data)


def test_truncated_anywhere(path: Path) -> None:
    whole = {len(pagemap()), len(VALID)}
    for length in range(len(VALID)):
        if readable(path, VALID[:length]):
            whole.add(length)
    assert len(whole) == 4


def test_any_bit_flipped(path: Path) -> None:
    for bit in range(len(VALID) * 8):
        data = bytearray(VALID)
        data[bit // 8] ^= 1 << bit % 8
        readable(path, bytes(data))


def test_memory_for_each_byte_of_the_file(path: Path) -> None:
    """An entry of 10 bytes becomes an object: 32 bytes for each byte of the file are the bound."""
    count = 20_000
    data = pagemap(*(entry(n * PAGE_SIZE, 1) for n in range(count)))
    ranges(path)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        assert len(read_pagemap(path).ranges) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * len(data)
