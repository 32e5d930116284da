"""The codec of the lazy page server's protocol: to the byte, and against anything."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import PageStoreError
from phaul.pages.store.wire import MOST_PAGES, Close, Get, Wire

WIRES = [Wire(wide=False), Wire(wide=True)]
wires = pytest.mark.parametrize("wire", WIRES, ids=["4.1", "4.2"])

gets = st.builds(
    Get,
    pagemap=st.integers(1, (1 << 31) - 1),
    address=st.integers(0, (1 << 52) - MOST_PAGES).map(lambda page: page * 4096),
    pages=st.integers(1, MOST_PAGES),
)


def test_the_bytes() -> None:
    get = Get(pagemap=7, address=0x5000, pages=3)
    narrow, wide = WIRES
    assert narrow.encode(get) == struct.pack("=IIQQ", 7, 3, 0x5000, 7)
    assert wide.encode(get) == struct.pack("=IIQQQ", 7, 0, 3, 0x5000, 7)
    assert narrow.answer(get, 2) == struct.pack("=IIQQ", 0x40006, 2, 0x5000, 7)
    assert wide.answer(get, 2) == struct.pack("=IIQQQ", 0x40006, 0, 2, 0x5000, 7)
    assert (narrow.size, wide.size) == (24, 32)


@wires
@given(get=gets)
def test_what_is_asked_comes_back(wire: Wire, get: Get) -> None:
    assert wire.decode(wire.encode(get)) == get
    assert wire.answered(wire.answer(get, get.pages)) == get


def test_unused_bytes_may_hold_anything() -> None:
    data = struct.pack("=IIQQQ", 7, 0xDEADBEEF, 3, 0x5000, 7)
    assert WIRES[1].decode(data) == Get(7, 0x5000, 3)


@wires
@pytest.mark.parametrize("command", [0x1023, 0x1024])
def test_close(wire: Wire, command: int) -> None:
    data = bytearray(wire.encode(Close()))
    data[:4] = struct.pack("=I", command)
    assert wire.decode(bytes(data)) == Close()


@wires
@given(data=st.binary(max_size=64) | st.binary(min_size=24, max_size=24))
def test_anything_is_a_question_or_an_error(wire: Wire, data: bytes) -> None:
    for read in (wire.decode, wire.answered):
        try:
            found = read(data)
        except PageStoreError:
            continue
        if isinstance(found, Get) and read == wire.decode:
            assert 0 < found.pages <= MOST_PAGES


@pytest.mark.parametrize(
    ("command", "pages", "address", "pagemap"),
    [
        (8, 1, 0x1000, 7),  # no such command
        (7 | 4 << 16, 1, 0x1000, 7),  # a question has no flags
        (7, 0, 0x1000, 7),
        (7, MOST_PAGES + 1, 0x1000, 7),
        (7, 1, 0x1001, 7),
        (7, 2, (1 << 64) - 4096, 7),  # beyond the address space
        (7, 1, 0x1000, 0),
        (7, 1, 0x1000, 1 << 31),
    ],
)
def test_what_cannot_be_meant(command: int, pages: int, address: int, pagemap: int) -> None:
    with pytest.raises(PageStoreError, match="criu asked for"):
        WIRES[1].decode(struct.pack("=I4xQQQ", command, pages, address, pagemap))


@wires
def test_an_answer_brings_what_was_asked_for_at_most(wire: Wire) -> None:
    for pages in (0, 4):
        with pytest.raises(ValueError):
            wire.answer(Get(7, 0x1000, 3), pages)
