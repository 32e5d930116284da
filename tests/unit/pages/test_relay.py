"""Bytes through a relay arrive as they were and are counted; an end on a side is passed on."""

import hashlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from phaul.errors import MemoryChannelError
from phaul.pages.relay import Relay


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


class Line:
    """user <-> near | relay | far <-> peer, the latter over TCP."""

    def __init__(self) -> None:
        self.user, near = socket.socketpair()
        far, self.peer = tcp_pair()
        self.ends = (self.user, self.peer)
        for end in self.ends:
            end.settimeout(60)
        self.relay = Relay(near, far)

    def close(self) -> None:
        self.relay.close()
        for end in self.ends:
            end.close()


@pytest.fixture
def line(no_leaks: None) -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def receive(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count and (data := sock.recv(min(count, 1 << 16))):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def counted(line: Line, sent: int, received: int) -> None:
    """Bytes are counted once the kernel has moved them, so the last ones can be a moment late."""
    end = time.monotonic() + 60
    while time.monotonic() < end and (line.relay.sent, line.relay.received) != (sent, received):
        time.sleep(0.01)
    assert (line.relay.sent, line.relay.received) == (sent, received)


@pytest.mark.parametrize("back", [False, True])
def test_much_arrives_as_it_was(line: Line, back: bool) -> None:
    data = random.Random(7).randbytes(20_000_000)
    source, target = reversed(line.ends) if back else line.ends
    sender = threading.Thread(target=source.sendall, args=(data,))
    sender.start()
    found = receive(target, len(data))
    sender.join()
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()
    counted(line, *((0, len(data)) if back else (len(data), 0)))


def test_both_ways_at_once(line: Line) -> None:
    data = os.urandom(3_000_000)
    senders = [threading.Thread(target=end.sendall, args=(data,)) for end in line.ends]
    found: dict[socket.socket, bytes] = {}
    readers = [
        threading.Thread(target=lambda end=end: found.update({end: receive(end, len(data))}))
        for end in line.ends
    ]
    for thread in (*senders, *readers):
        thread.start()
    for thread in (*senders, *readers):
        thread.join()
    assert list(found.values()) == [data, data]
    counted(line, len(data), len(data))


def test_a_half_close_is_passed_on_and_the_other_way_lives(line: Line) -> None:
    line.user.sendall(b"question")
    line.user.shutdown(socket.SHUT_WR)
    assert receive(line.peer, 100) == b"question"
    line.peer.sendall(b"answer")
    line.peer.shutdown(socket.SHUT_WR)
    assert receive(line.user, 100) == b"answer"
    line.relay.check()


def eventually_broken(relay: Relay) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            relay.check()
        except MemoryChannelError:
            return
        time.sleep(0.01)
    raise AssertionError("nothing was noticed")


def test_a_reset_is_noticed_and_ends_the_other_side(line: Line) -> None:
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.peer.close()
    assert line.user.recv(1) == b""
    eventually_broken(line.relay)


def test_a_peer_that_vanishes_under_load(line: Line) -> None:
    line.user.sendall(bytes(1 << 20))
    line.peer.close()

    def write() -> None:
        while True:
            line.user.sendall(bytes(1 << 20))

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        write()


@pytest.mark.parametrize("end", [0, 1])
def test_break_off_ends_readers(line: Line, end: int) -> None:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(line.ends[end].recv(1)))
    reader.start()
    line.relay.break_off()
    reader.join(60)
    assert found == [b""]


def test_break_off_ends_a_writer_that_nobody_reads(line: Line) -> None:
    failed = threading.Event()

    def write() -> None:
        try:
            while True:
                line.user.sendall(bytes(1 << 20))
        except OSError:
            failed.set()

    writer = threading.Thread(target=write)
    writer.start()
    while line.relay.sent < 1 << 20:
        time.sleep(0.01)
    line.relay.break_off()
    writer.join(60)
    assert failed.is_set()


def test_close_may_be_called_again(line: Line) -> None:
    line.relay.close()
    line.relay.close()
    line.relay.break_off()


def test_its_threads_end(line: Line) -> None:
    ours = [t for t in threading.enumerate() if t.name.startswith("phaul-relay")]
    assert len(ours) >= 2
    line.relay.close()
    assert not any(t.is_alive() for t in ours[-2:])
