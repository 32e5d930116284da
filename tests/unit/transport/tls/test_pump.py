"""The pump alone, between a TLS connection by hand and a unix socket."""

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from phaul.transport.tls.context import client_context, server_context
from phaul.transport.tls.pump import Pump
from tests.unit.transport.tls.conftest import LIMIT, keyring

SIZE = 9_000_001


@dataclass
class Ends:
    """`far` is the other host's end of TLS, `near` CRIU's of the unix socket."""

    pump: Pump
    far: ssl.SSLSocket
    near: socket.socket

    def goodbye(self) -> None:
        with suppress(OSError):
            self.far.unwrap().close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ours, theirs = keyring(tmp_path / "ours").identity(), keyring(tmp_path / "theirs").identity()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw = socket.create_connection(listener.getsockname(), LIMIT)
        accepted, _ = listener.accept()
    accepted.settimeout(LIMIT)
    made: list[ssl.SSLSocket] = []
    context = server_context(theirs, [ours.certificate], joinable=False)
    thread = threading.Thread(
        target=lambda: made.append(
            context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False)
        )
    )
    thread.start()
    client = client_context(ours, theirs.certificate).wrap_socket(raw, suppress_ragged_eofs=False)
    thread.join(LIMIT)
    near, pumped = socket.socketpair()
    near.settimeout(LIMIT)
    both = Ends(Pump(client, pumped), made[0], near)
    yield both
    both.pump.close()
    both.far.close()
    both.near.close()


def read(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count and (data := sock.recv(min(count, 1 << 16))):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def test_both_ways_at_once(ends: Ends) -> None:
    """One of the two senders alone would fill all buffers."""
    ends.pump.start()
    data, back = os.urandom(SIZE), os.urandom(SIZE)
    sender = threading.Thread(target=ends.near.sendall, args=(data,))
    sender.start()
    taken: list[bytes] = []
    taker = threading.Thread(target=lambda: taken.append(read(ends.near, SIZE)))
    taker.start()
    # A TLS socket may be used by one thread at a time: a piece each way, in turns.
    got = hashlib.sha256()
    left, view = SIZE, memoryview(back)
    while left or view:
        view = view[ends.far.send(view[:50_000]) :] if view else view
        piece = read(ends.far, min(left, 50_000))
        got.update(piece)
        left -= len(piece)
    sender.join(LIMIT)
    taker.join(LIMIT)
    assert got.digest() == hashlib.sha256(data).digest()
    assert taken[0] == back
    assert (ends.pump.sent, ends.pump.received) == (SIZE, SIZE)


def test_what_was_sent_before_the_end_arrives(ends: Ends) -> None:
    ends.pump.start()
    data = os.urandom(SIZE)

    def send() -> None:
        ends.near.sendall(data)
        ends.near.close()

    sender = threading.Thread(target=send)
    sender.start()
    assert read(ends.far, SIZE) == data
    assert ends.far.recv(1) == b""  # a goodbye: it would raise otherwise
    sender.join(LIMIT)
    ends.goodbye()
    ends.pump._thread.join(LIMIT)
    assert ends.pump.fault == ""


def test_a_goodbye_ends_the_other_side(ends: Ends) -> None:
    ends.pump.start()
    ends.far.sendall(b"last words")
    ends.goodbye()
    assert read(ends.near, 100) == b"last words"
    ends.pump._thread.join(LIMIT)
    assert ends.pump.fault == ""


def test_a_connection_that_is_cut_off(ends: Ends) -> None:
    ends.pump.start()
    socket.socket.shutdown(ends.far, socket.SHUT_RDWR)
    assert ends.near.recv(1) == b""
    ends.pump._thread.join(LIMIT)
    assert "EOF" in ends.pump.fault


def test_to_break_off_ends_whoever_waits(ends: Ends) -> None:
    ends.pump.start()
    threading.Timer(0.1, ends.pump.break_off).start()
    assert ends.near.recv(1) == b""
    ends.pump.close()
    ends.pump.close()
    assert not ends.pump._thread.is_alive()
    assert ends.pump.fault == ""


def test_to_break_off_ends_a_pump_that_nobody_reads_from(ends: Ends) -> None:
    ends.pump.start()
    ends.near.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ends.near.send(bytes(1 << 16))
    ends.pump.close()
    assert not ends.pump._thread.is_alive()


def test_one_that_never_ran_can_be_closed(ends: Ends) -> None:
    ends.pump.close()
    assert ends.near.recv(1) == b""
