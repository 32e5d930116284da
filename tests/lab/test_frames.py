import socket
from collections.abc import Iterator

import pytest

from lab import frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    right.settimeout(5)
    with left, right:
        yield left, right


@pytest.mark.parametrize("payload", [b"", b"x", bytes(100_000)])
def test_a_frame_comes_as_it_was_sent(pair: Pair, payload: bytes) -> None:
    left, right = pair
    frames.send(left, frames.STDOUT, payload)
    frames.send(left, frames.STATUS, b"0")
    assert frames.receive(right) == (frames.STDOUT, payload)
    assert frames.receive(right) == (frames.STATUS, b"0")


def test_a_close_between_frames_is_the_end(pair: Pair) -> None:
    left, right = pair
    left.close()
    assert frames.receive(right) == (b"", b"")


@pytest.mark.parametrize("sent", [b"o\0\0", b"o\0\0\0\5abc"])
def test_a_close_within_a_frame_is_an_error(pair: Pair, sent: bytes) -> None:
    left, right = pair
    left.sendall(sent)
    left.close()
    with pytest.raises(frames.FrameError, match="closed"):
        frames.receive(right)


def test_a_stray_client_is_told_from_an_agent(pair: Pair) -> None:
    left, right = pair
    left.sendall(b"GET / HTTP/1.1\r\n")
    with pytest.raises(frames.FrameError, match="not the lab's agent"):
        frames.receive(right)
