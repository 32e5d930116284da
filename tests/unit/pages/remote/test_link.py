"""What is said over the link: as it was meant, or an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import PageStoreError
from phaul.pages.remote.link import MOST_ASKED, MOST_GIVEN, SIZE, Kind, Message, decode
from phaul.pages.store.index import PAGE

asks = st.builds(
    Message,
    st.just(Kind.ASK),
    st.integers(0, (1 << 31) - 1),
    st.integers(0, (1 << 51) - 1).map(lambda number: number * PAGE),
    st.integers(1, MOST_ASKED),
    st.booleans(),
)


@given(asks)
def test_round_trip(message: Message) -> None:
    data = message.encode()
    assert len(data) == SIZE
    assert decode(data) == message


@pytest.mark.parametrize("kind", [Kind.DONE, Kind.LOST])
def test_what_names_no_pages(kind: Kind) -> None:
    assert decode(Message(kind).encode()) == Message(kind)
    with pytest.raises(PageStoreError, match=kind.name):
        decode(Message(kind, pages=1).encode())


@pytest.mark.parametrize(
    "message",
    [
        Message(Kind.ASK, 7, PAGE, 0),
        Message(Kind.ASK, 7, PAGE, MOST_ASKED + 1),
        Message(Kind.PAGES, 7, PAGE, MOST_GIVEN + 1),
        Message(Kind.ASK, 7, PAGE + 1, 1),
        Message(Kind.ASK, 1 << 31, PAGE, 1),
        Message(Kind.ASK, 7, (1 << 64) - PAGE, 2),
    ],
)
def test_what_cannot_be_meant(message: Message) -> None:
    with pytest.raises(PageStoreError, match=f"{message.kind.name} came with"):
        decode(message.encode())


@given(st.binary(max_size=2 * SIZE))
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        message = decode(data)
    except PageStoreError:
        return
    assert decode(message.encode()) == message
