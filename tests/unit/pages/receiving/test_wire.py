"""What CRIU says to a page server: what is said is understood, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import PageStoreError
from phaul.pages.receiving import Commands, Kind, Map
from phaul.pages.receiving.wire import Add, Ask, Close, Command, Open
from phaul.pages.store.index import PAGE

MAPS = st.builds(Map, st.sampled_from(Kind), st.integers(1, (1 << 32) - 1))
ADDS = st.builds(
    Add,
    MAPS,
    st.integers(0, 1 << 40).map(lambda number: number * PAGE),
    st.integers(1, (1 << 32) - 1),
    st.integers(0, 7),
)
COMMANDS = st.one_of(
    st.builds(Open, MAPS, st.booleans()), st.builds(Ask, MAPS), ADDS, st.just(Close())
)


@given(COMMANDS, st.booleans())
def test_what_is_said_is_understood(command: Command, wide: bool) -> None:
    commands = Commands(wide=wide)
    data = commands.encode(command)
    assert len(data) == commands.size
    assert commands.decode(data) == command


@given(st.binary(min_size=32, max_size=32))
def test_all_else_is_an_error(data: bytes) -> None:
    commands = Commands(wide=True)
    try:
        found = commands.decode(data)
    except PageStoreError:
        return
    if isinstance(found, Add):
        assert found.address % PAGE == 0
        assert found.pages > 0
        assert found.address + found.pages * PAGE <= 1 << 64


@pytest.mark.parametrize(
    ("wide", "text"),
    [
        (True, "0400000000000000 0000000000000000 0000000000000000 01 2a000000000000"),
        (False, "04000000 00000000 0000000000000000 012a000000000000"),
    ],
)
def test_as_criu_sends_it(wide: bool, text: str) -> None:
    opened = Open(Map(Kind.PROCESS, 42), answered=True)
    assert Commands(wide=wide).decode(bytes.fromhex(text)) == opened


def test_what_older_ones_send() -> None:
    """Ranges without flags (PS_IOV_ADD, PS_IOV_HOLE): present, and in the parent."""
    commands = Commands(wide=True)
    for command, flags in ((1, 4), (2, 1)):
        data = commands.encode(Add(Map(Kind.SHARED, 7), PAGE, 3, 0))
        found = commands.decode(bytes([command]) + data[1:])
        assert found == Add(Map(Kind.SHARED, 7), PAGE, 3, flags)
