"""Frames come out as they went in; what is none is refused without room being made for it."""

import random
import sys
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.pages.frames import CHUNK, HEADER, FrameError, Kind, Packer, header, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.integers(1, CHUNK // 2000))
def test_what_gets_smaller_comes_out_as_it_was(data: bytes, times: int) -> None:
    memory = data * times
    packed = Packer(patient=False).pack(memoryview(memory))
    if packed is not None:
        assert len(packed) < len(memory)
        assert unpack(packed) == memory


@pytest.mark.parametrize("size", [100, 4096, CHUNK - 1, CHUNK])
def test_zeros(size: int) -> None:
    packed = Packer(patient=False).pack(memoryview(bytes(size)))
    assert packed is not None
    assert len(packed) < 100
    assert unpack(packed) == bytes(size)


def test_one_packer_makes_many_whole_frames() -> None:
    packer = Packer(patient=False)
    for number in range(10):
        memory = bytes([number]) * 10_000
        packed = packer.pack(memoryview(memory))
        assert packed is not None
        assert unpack(packed) == memory


def test_what_does_not_get_smaller_is_sent_as_it_is_and_tried_less_often() -> None:
    noise = memoryview(random.Random(1).randbytes(4096))
    text = memoryview(b"text " * 800)
    packer = Packer(patient=True)
    assert all(packer.pack(noise) is None for _ in range(200))
    tries = [packer.pack(text) is not None for _ in range(100)]
    assert any(tries)
    assert all(tries[tries.index(True) :])
    impatient = Packer(patient=False)
    assert impatient.pack(noise) is None
    assert impatient.pack(text) is not None


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_header_is_believed_within_its_limits_only(kind: int, length: int) -> None:
    data = HEADER.pack(kind, length)
    if kind in {0, 1} and 0 < length <= CHUNK:
        assert header(data) == (Kind(kind), length)
    else:
        with pytest.raises(FrameError, match="the other side sent a frame of"):
            header(data)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_memory_or_a_frame_error(data: bytes) -> None:
    with suppress(FrameError):
        assert 0 < len(unpack(data)) <= CHUNK


@settings(deadline=None)
@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    packed = bytearray(Packer(patient=False).pack(memoryview(b"some text " * 500)) or b"")
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    with suppress(FrameError):
        assert unpack(packed) == b"some text " * 500  # a bit that means nothing


def _squeezed(data: bytes, **options: int) -> bytes:
    parameter = zstd.CompressionParameter
    named: dict[int, int] = {parameter[name]: value for name, value in options.items()}
    return bytes(zstd.compress(data, options=named))


def _streamed(size: int) -> bytes:
    """Zeros of a size that the frame does not tell, in a window that is allowed."""
    encoder = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 18})
    return bytes(encoder.compress(bytes(size)) + encoder.flush())


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (b"", "not one whole piece"),
        (_squeezed(b""), "nothing in it"),
        (_squeezed(bytes(CHUNK + 1)), "more than|decoded"),
        (_streamed(CHUNK + 1), "more than"),
        (_streamed(1 << 26), "more than"),
        (_squeezed(bytes(1 << 28)), "more than|decoded"),
        (_squeezed(bytes(1 << 26), window_log=27), "more than|decoded"),
        (_squeezed(b"abc" * 100)[:-1], "not one whole piece"),
        (_squeezed(b"abc") + _squeezed(b"abc"), "not one whole piece"),
        (b"no zstd at all", "cannot be decoded"),
    ],
)
def test_hostile_frames_take_no_room(packed: bytes, said: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=said):
            unpack(packed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * CHUNK
