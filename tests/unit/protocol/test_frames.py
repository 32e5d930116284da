"""Frames come out as they went in, however the stream is cut; anything else is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import ProtocolError
from phaul.protocol.frames import (
    HEADER_BYTES,
    MAX_CHUNK,
    MAX_CONTROL,
    Decoder,
    Frame,
    Kind,
    header,
    pack,
)

frames = st.builds(Frame, st.sampled_from(Kind), st.binary(min_size=1, max_size=500))


@given(st.lists(frames, max_size=20), st.lists(st.integers(1, 300), min_size=1))
def test_there_and_back(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(pack(frame) for frame in sent)
    decoder = Decoder()
    found: list[Frame] = []
    offset = turn = 0
    while offset < len(stream):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[offset : offset + size])
        offset, turn = offset + size, turn + 1
    decoder.finish()
    assert found == sent
    assert decoder.buffered == 0


@pytest.mark.parametrize(("kind", "most"), [(Kind.CONTROL, MAX_CONTROL), (Kind.RAW, MAX_CHUNK)])
def test_the_largest_and_one_more(kind: Kind, most: int) -> None:
    frame = Frame(kind, bytes(most))
    assert Decoder().feed(pack(frame)) == [frame]
    with pytest.raises(ValueError, match="1 to"):
        pack(Frame(kind, bytes(most + 1)))
    too_large = (most + 1).to_bytes(4, "big") + bytes([kind])
    with pytest.raises(ProtocolError, match=f"{most + 1} bytes"):
        Decoder().feed(too_large)


@pytest.mark.parametrize("kind", Kind)
def test_there_is_no_empty_frame(kind: Kind) -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        header(kind, 0)
    with pytest.raises(ProtocolError, match="0 bytes"):
        Decoder().feed(bytes([0, 0, 0, 0, kind]))


@pytest.mark.parametrize("number", [0, 3, 255])
def test_an_unknown_kind(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"unknown kind {number}"):
        Decoder().feed(bytes([0, 0, 0, 1, number, 0]))


def test_it_stays_broken() -> None:
    decoder = Decoder()
    for data in (b"\0\0\0\1\7", pack(Frame(Kind.RAW, b"x"))):
        with pytest.raises(ProtocolError, match="unknown kind 7"):
            decoder.feed(data)
    with pytest.raises(ProtocolError):
        decoder.finish()
    assert decoder.buffered == 0


def test_a_wrong_header_after_a_right_frame() -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        Decoder().feed(pack(Frame(Kind.RAW, b"x")) + b"\0\0\0\1\7")


def test_an_end_within_a_frame() -> None:
    decoder = Decoder()
    assert decoder.feed(header(Kind.RAW, 10) + b"123") == []
    with pytest.raises(ProtocolError, match="within a frame"):
        decoder.finish()


def test_what_a_shell_says_is_quoted() -> None:
    with pytest.raises(ProtocolError, match="'Welcome to host2!'") as caught:
        Decoder().feed(b"Welcome to host2!\nLast login: yesterday\n")
    assert "standard output" in caught.value.remedy


@given(st.binary(max_size=4000), st.integers(1, 100))
def test_garbage_is_bounded(data: bytes, step: int) -> None:
    decoder = Decoder()
    try:
        for offset in range(0, len(data), step):
            for frame in decoder.feed(data[offset : offset + step]):
                assert 1 <= len(frame.payload) <= MAX_CHUNK
            assert decoder.buffered < MAX_CHUNK + HEADER_BYTES
    except ProtocolError:
        assert decoder.buffered == 0
