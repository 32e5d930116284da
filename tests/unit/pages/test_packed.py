"""Two relays, one on each host: what CRIU writes comes out the same, whatever is between."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phaul.errors import MemoryChannelError, UsageError
from phaul.pages.bandwidth import Bandwidth
from phaul.pages.channel import MemoryChannel
from phaul.pages.frames import CHUNK, HEADER, Compression
from phaul.pages.relay import Relay
from tests.unit.pages.test_bandwidth import Clock
from tests.unit.pages.test_relay import eventually_broken, receive, tcp_pair

pytestmark = pytest.mark.usefixtures("no_leaks")
FRAMED = [Compression.AUTO, Compression.ZSTD]


class Line:
    """user <-> relay <- network -> relay <-> peer."""

    def __init__(
        self, compression: Compression, *, tcp: bool, bandwidth: Bandwidth | None = None
    ) -> None:
        self.user, near = socket.socketpair()
        self.peer, other = socket.socketpair()
        here, there = tcp_pair() if tcp else socket.socketpair()
        for end in (self.user, self.peer):
            end.settimeout(60)
        framed = compression is not Compression.NONE
        self.source = Relay(near, here, bandwidth=bandwidth, compression=compression)
        self.target = Relay(other, there, framed=framed)

    def close(self) -> None:
        self.source.close()
        self.target.close()
        self.user.close()
        self.peer.close()


def stream(seed: int, pieces: list[tuple[str, int]]) -> list[bytes]:
    """Pieces of memory: zeros, text, noise."""
    chance = random.Random(seed)
    made = []
    for kind, size in pieces:
        match kind:
            case "zeros":
                made.append(bytes(size))
            case "text":
                words = b" ".join(chance.choice([b"page", b"round", b"host"]) for _ in range(50))
                made.append((words * (size // len(words) + 1))[:size])
            case _:
                made.append(chance.randbytes(size))
    return made


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["zeros", "text", "noise"]),
        st.one_of(st.integers(1, 100), st.integers(1, 3 * CHUNK)),
    ),
    max_size=8,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 1000), PIECES, st.sampled_from(Compression), st.booleans())
def test_any_stream_comes_out_as_it_was(
    seed: int, pieces: list[tuple[str, int]], compression: Compression, tcp: bool
) -> None:
    made = stream(seed, pieces)
    whole = b"".join(made)
    with closing(Line(compression, tcp=tcp)) as line:

        def write() -> None:
            for piece in made:
                line.user.sendall(piece)
            line.user.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        assert receive(line.peer, len(whole)) == whole
        assert line.peer.recv(1) == b""  # the end is passed on
        writer.join()
        line.peer.sendall(b"answer")
        assert receive(line.user, 6) == b"answer"
        line.source.check()
        line.target.check()


@pytest.mark.parametrize("compression", Compression)
def test_each_message_gets_through_at_once(compression: Compression) -> None:
    with closing(Line(compression, tcp=True)) as line:
        for size in (1, 24, 32, 4096, 5):
            line.user.sendall(b"x" * size)
            assert receive(line.peer, size) == b"x" * size
            line.peer.sendall(b"ok")
            assert receive(line.user, 2) == b"ok"


@pytest.mark.parametrize("compression", FRAMED)
def test_the_counts(compression: Compression) -> None:
    with closing(Line(compression, tcp=True)) as line:
        writer = threading.Thread(target=line.user.sendall, args=(bytes(10 * CHUNK),))
        writer.start()
        receive(line.peer, 10 * CHUNK)
        writer.join()
        line.peer.sendall(b"ok")
        receive(line.user, 2)
        # Counted once the kernel has moved them.
        end = time.monotonic() + 60
        while time.monotonic() < end and not (
            line.source.sent == line.target.received
            and line.source.received == line.target.sent == 2
            and line.source.memory_bytes == line.target.memory_bytes
        ):
            time.sleep(0.01)
        assert line.source.sent == line.target.received
        assert line.source.received == line.target.sent == 2
        assert line.source.memory_bytes == line.target.memory_bytes == 10 * CHUNK + 2
        if compression is Compression.ZSTD:
            assert line.source.sent < CHUNK


@pytest.mark.parametrize("compression", Compression)
def test_the_limit_holds_through_a_relay(compression: Compression) -> None:
    clock = Clock()
    bandwidth = clock.limit(1e6)
    noise = random.Random(3).randbytes(3_000_000)
    with closing(Line(compression, tcp=True, bandwidth=bandwidth)) as line:
        writer = threading.Thread(target=line.user.sendall, args=(noise,))
        writer.start()
        assert receive(line.peer, len(noise)) == noise
        writer.join()
    assert clock.now - 1000 == pytest.approx(3, rel=0.05)


def test_auto_compresses_what_would_wait() -> None:
    clock = Clock()
    with closing(Line(Compression.AUTO, tcp=True, bandwidth=clock.limit(1e6))) as line:
        writer = threading.Thread(target=line.user.sendall, args=(bytes(20_000_000),))
        writer.start()
        assert receive(line.peer, 20_000_000) == bytes(20_000_000)
        writer.join()
        assert line.source.sent < 1_000_000


@pytest.fixture
def hostile() -> Iterator[tuple[socket.socket, socket.socket, Relay]]:
    """The network's end and CRIU's end of a relay that expects frames."""
    criu, near = socket.socketpair()
    far, peer = tcp_pair()
    for end in (criu, peer):
        end.settimeout(60)
    relay = Relay(near, far, framed=True)
    with criu, peer, closing(relay):
        yield peer, criu, relay


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (HEADER.pack(2, 10), "unknown kind 2"),
        (HEADER.pack(0, 0), "frame of 0 bytes"),
        (HEADER.pack(0, CHUNK + 1), "1 to"),
        (HEADER.pack(1, 2**32 - 1), "1 to"),
        (HEADER.pack(1, 4) + b"abcd", "cannot be decoded"),
        (HEADER.pack(0, 10) + b"abc", "middle of a frame"),
        (HEADER.pack(1, 10) + b"abc", "middle of a frame"),
        (HEADER.pack(0, 3)[:3], "middle of a frame"),
    ],
)
def test_a_hostile_peer_ends_the_channel(
    hostile: tuple[socket.socket, socket.socket, Relay], sent: bytes, said: str
) -> None:
    peer, criu, relay = hostile
    peer.sendall(HEADER.pack(0, 2) + b"ok" + sent)
    peer.shutdown(socket.SHUT_WR)
    assert receive(criu, 2) == b"ok"
    while criu.recv(100):
        pass
    eventually_broken(relay)
    with pytest.raises(MemoryChannelError, match=said):
        relay.check()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=500))
def test_any_bytes_end_somehow(data: bytes) -> None:
    criu, near = socket.socketpair()
    far, peer = socket.socketpair()
    criu.settimeout(60)
    with criu, peer, closing(Relay(near, far, framed=True)):
        with suppress(OSError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        while criu.recv(1 << 16):
            pass


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("read", [0, 1, CHUNK, 5 * CHUNK])
def test_close_under_way_leaves_no_thread(compression: Compression, read: int) -> None:
    before = threading.active_count()
    line = Line(compression, tcp=True, bandwidth=Bandwidth(2e6 if read else 1.0))

    def write() -> None:
        with suppress(OSError):
            line.user.sendall(random.Random(5).randbytes(40 * CHUNK))

    writer = threading.Thread(target=write)
    writer.start()
    receive(line.peer, read)
    line.close()
    writer.join(60)
    assert threading.active_count() == before


@pytest.mark.parametrize("compression", Compression)
def test_channels_over_a_unix_socket(compression: Compression) -> None:
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(sock) for sock in socket.socketpair())
        source = stack.enter_context(
            closing(MemoryChannel(ours.fileno(), compression=compression, count=True))
        )
        framed = compression is not Compression.NONE
        target = stack.enter_context(
            closing(MemoryChannel(theirs.fileno(), framed=framed, count=True))
        )
        ends = [socket.socket(fileno=channel.criu_fd) for channel in (source, target)]
        try:
            ends[0].sendall(b"pages" * 1000)
            assert receive(ends[1], 5000) == b"pages" * 1000
            ends[1].sendall(b"ok")
            assert receive(ends[0], 2) == b"ok"
        finally:
            for end in ends:
                end.detach()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and source.memory_bytes != target.memory_bytes:
            time.sleep(0.01)
        assert source.memory_bytes == target.memory_bytes == 5002
        assert source.relayed_bytes == (source.sent or 0) + (source.received or 0)


def test_a_limit_needs_a_relay() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with closing(MemoryChannel(ours.fileno())) as channel:
            assert channel.sent is channel.received is channel.memory_bytes is None
            with pytest.raises(UsageError, match="no relay"):
                channel.limit(1e6)
        with closing(MemoryChannel(ours.fileno(), count=True)) as channel:
            channel.limit(1e6)
            assert channel.sent == channel.received == channel.memory_bytes == 0
