import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from phaul.errors import DescriptorError, MemoryChannelError
from phaul.pages.channel import MemoryChannel
from tests.unit.pages.test_relay import receive, tcp_pair

pytestmark = pytest.mark.usefixtures("no_leaks")
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[Pair]:
    ours, theirs = socket.socketpair() if request.param == "unix" else tcp_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def channel(pair: Pair) -> Iterator[MemoryChannel]:
    made = MemoryChannel(pair[0].fileno(), "source")
    yield made
    made.close()


def criu_end(channel: MemoryChannel) -> socket.socket:
    sock = socket.socket(fileno=os.dup(channel.criu_fd))
    sock.settimeout(60)
    return sock


def test_bytes_flow_both_ways(channel: MemoryChannel, pair: Pair) -> None:
    with criu_end(channel) as criu:
        criu.settimeout(60)
        criu.sendall(b"pages")
        assert receive(pair[1], 5) == b"pages"
        pair[1].sendall(b"ok")
        assert receive(criu, 2) == b"ok"
    channel.check()


def test_unix_passes_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(MemoryChannel(ours.fileno())) as channel:
        assert os.path.sameopenfile(channel.criu_fd, ours.fileno())
        assert channel.relayed_bytes is None


def test_tcp_gets_a_relay() -> None:
    ours, theirs = tcp_pair()
    with ours, theirs, closing(MemoryChannel(ours.fileno())) as channel:
        with criu_end(channel) as criu:
            assert criu.family == socket.AF_UNIX
            criu.sendall(b"12345")
            assert receive(theirs, 5) == b"12345"
        # Counted once the kernel has moved them.
        while channel.relayed_bytes != 5:
            time.sleep(0.01)


def test_what_criu_gets_blocks(pair: Pair) -> None:
    """CRIU takes a short read for the end; and a Python socket with a timeout does not block."""
    pair[0].settimeout(5)
    with closing(MemoryChannel(pair[0].fileno())) as channel:
        assert os.get_blocking(channel.criu_fd)


def test_the_callers_socket_stays_usable(pair: Pair) -> None:
    MemoryChannel(pair[0].fileno()).close()
    if pair[0].family == socket.AF_UNIX:
        pair[0].sendall(b"x")
        assert pair[1].recv(1) == b"x"
    assert os.fstat(pair[0].fileno())


def test_break_off_ends_readers(channel: MemoryChannel, pair: Pair) -> None:
    found: list[bytes] = []
    with criu_end(channel) as criu:
        threads = [
            threading.Thread(target=lambda sock=sock: found.append(sock.recv(1)))
            for sock in (criu, pair[1])
        ]
        for thread in threads:
            thread.start()
        channel.break_off()
        for thread in threads:
            thread.join(60)
    assert found == [b"", b""]
    with pytest.raises(MemoryChannelError, match="new_chain"):
        channel.check()
    with pytest.raises(DescriptorError, match="other side"):
        MemoryChannel(pair[0].fileno())


def test_close_may_be_called_again(channel: MemoryChannel) -> None:
    channel.close()
    channel.close()


def test_the_peer_is_gone(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(DescriptorError, match="closed on the other side"):
        MemoryChannel(pair[0].fileno()).close()


def test_a_closed_descriptor() -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    ours.close()
    theirs.close()
    with pytest.raises(DescriptorError, match="not an open descriptor"):
        MemoryChannel(number)


@pytest.mark.parametrize("number", [-1, 2**31, 2**70, "3", None])
def test_what_is_no_number(number: int) -> None:
    with pytest.raises(DescriptorError, match="memory_fd") as caught:
        MemoryChannel(number, "source")
    assert caught.value.host == "source"
    assert "connected stream socket" in caught.value.remedy


def _file() -> list[int]:
    return [os.open(__file__, os.O_RDONLY)]


def _directory() -> list[int]:
    return [os.open(Path(__file__).parent, os.O_RDONLY)]


def _sock(kind: int, family: int = socket.AF_INET) -> list[int]:
    return [socket.socket(family, kind).detach()]


def _pair(kind: int) -> list[int]:
    return [sock.detach() for sock in socket.socketpair(socket.AF_UNIX, kind)]


def _listening() -> list[int]:
    return [socket.create_server(("127.0.0.1", 0)).detach()]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_file, "not a socket"),
        (_directory, "not a socket"),
        (lambda: list(os.pipe()), "not a socket"),
        (lambda: _sock(socket.SOCK_STREAM), "not connected"),
        (lambda: _sock(socket.SOCK_STREAM, socket.AF_UNIX), "not connected"),
        (_listening, "not connected"),
        (lambda: _sock(socket.SOCK_DGRAM), "not a stream socket"),
        (lambda: _pair(socket.SOCK_DGRAM), "not a stream socket"),
        (lambda: _pair(socket.SOCK_SEQPACKET), "not a stream socket"),
    ],
)
def test_what_will_not_do(make: Callable[[], list[int]], said: str) -> None:
    numbers = make()
    try:
        with pytest.raises(DescriptorError, match=said):
            MemoryChannel(numbers[0])
    finally:
        for number in numbers:
            os.close(number)
