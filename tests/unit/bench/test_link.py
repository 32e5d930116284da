"""The link of the benches: what it carries a second, and that it loses nothing."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.delay import Bucket, Junction
from bench.peers.link import Link


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    st.floats(1e4, 1e10),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 1 << 22)), max_size=50),
)
def test_no_more_than_its_rate_and_what_was_spared(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    spare, sent = bucket.allowed(), 0
    for pause, wanted in steps:
        clock.now += pause
        now = min(bucket.allowed(), wanted)
        assert 0 <= now <= spare + 1
        bucket.take(now)
        sent += now
        assert sent <= spare + clock.now * rate + 1


@given(st.floats(1e4, 1e10))
def test_who_waits_as_it_says_may_send(rate: float) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    assert bucket.wait_s() == 0
    bucket.take(bucket.allowed())
    clock.now += bucket.wait_s() * 1.001
    assert bucket.wait_s() <= 1e-9
    assert bucket.allowed() >= 1


def move(junction: Junction, near: socket.socket, far: socket.socket, data: bytes) -> bytes:
    """Send all that fits at once, then all the rest, and read it."""
    for sock in (near, far):
        sock.setblocking(False)
    sent, got = 0, b""
    while len(got) < len(data):
        with suppress(BlockingIOError):
            sent += near.send(data[sent:]) if sent < len(data) else 0
        junction.step()
        with suppress(BlockingIOError):
            got += far.recv(1 << 20)
    return got


@pytest.fixture
def ends() -> Iterator[list[socket.socket]]:
    sockets = [sock for _ in range(2) for sock in socket.socketpair()]
    yield sockets
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("rate", [None, 5e7])
def test_what_goes_in_comes_out(ends: list[socket.socket], rate: float | None) -> None:
    near, one, other, far = ends
    junction = Junction(rate=rate)
    junction.add(one, other)
    data = bytes(range(256)) * 4000
    assert move(junction, near, far, data) == data
    assert junction.sent == (len(data), 0)
    assert move(junction, far, near, data[:1000]) == data[:1000]
    assert junction.sent == (len(data), 1000)


def test_it_ends_when_both_ends_have(ends: list[socket.socket]) -> None:
    near, one, other, far = ends
    junction = Junction()
    junction.add(one, other)
    near.send(b"last")
    near.shutdown(socket.SHUT_WR)
    far.shutdown(socket.SHUT_WR)
    while junction.open:
        junction.step()
    assert (far.recv(10), far.recv(10), near.recv(10)) == (b"last", b"", b"")
    assert junction.sent == (4, 0)


def test_a_link_of_its_own_joins_and_counts() -> None:
    with Link(1e9) as link:
        near, far = link.line.pair()
        third, fourth = link.line.pair()
        with near, far, third, fourth:
            for sock in (near, far, third, fourth):
                sock.settimeout(30)
            near.sendall(b"there")
            fourth.sendall(b"and back")
            assert far.recv(100) == b"there"
            assert third.recv(100) == b"and back"
            assert link.line.carried() == (5, 8)
