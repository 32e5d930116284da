"""One direction of the relay: moves bytes from a socket to another until the first one ends.

Used on both hosts, in a thread each, from the first round to the end of the cutover.  Bytes that
are not compressed stay in the kernel.
"""

import fcntl
import os
import select
import socket
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from phaul.pages.bandwidth import Bandwidth
from phaul.pages.frames import (
    CHUNK,
    HEADER,
    Compression,
    FrameError,
    Kind,
    Packer,
    header,
    unpack,
)
from phaul.pages.pace import Pace
from phaul.pages.pipes import SIZE, large_pipe

__all__ = ["Moved", "pack", "splice", "unpack_all"]


@dataclass(eq=False)
class Moved:
    """The bytes of one direction so far: `wire` on the network, `memory` before compression.

    Each is counted before it goes: whoever hears an answer to it finds it here.
    """

    wire: int = 0
    memory: int = 0


def splice(
    source: socket.socket, target: socket.socket, moved: Moved, bandwidth: Bandwidth
) -> None:
    """Move the bytes as they are."""
    with _pipe() as (reader, writer):
        while count := os.splice(source.fileno(), writer, bandwidth.piece(SIZE)):
            bandwidth.wait()
            _drain(reader, target, count, moved)
            bandwidth.spend(count)


def pack(
    source: socket.socket,
    target: socket.socket,
    moved: Moved,
    bandwidth: Bandwidth,
    compression: Compression,
) -> None:
    """Move the bytes in frames; with AUTO, compressed where there is time for it."""
    pace = Pace() if compression is Compression.AUTO else None
    packer = Packer(patient=pace is not None)
    memory = memoryview(bytearray(CHUNK))
    readable, writable = select.poll(), select.poll()
    readable.register(source, select.POLLIN)
    writable.register(target, select.POLLOUT)
    with _pipe() as (reader, writer):
        while True:
            size = bandwidth.piece(CHUNK)
            if pace is not None:
                readable.poll()
                delay = bandwidth.delay()
                blocked = not writable.poll(0)
                queued = _queued(target) if blocked else 0
                if not pace.allows(size, queued, delay, bandwidth.rate):
                    if not (count := os.splice(source.fileno(), writer, size)):
                        return
                    bandwidth.wait()
                    begun = time.monotonic()
                    moved.wire += HEADER.size
                    target.sendall(HEADER.pack(Kind.RAW, count), socket.MSG_MORE)
                    _drain(reader, target, count, moved)
                    pace.sent(count, time.monotonic() - begun, blocked=blocked)
                    bandwidth.spend(HEADER.size + count)
                    continue
            if not (count := source.recv_into(memory, size)):
                return
            begun = time.monotonic()
            packed = packer.pack(memory[:count])
            length = count if packed is None else len(packed)
            if pace is not None and packer.tried:
                pace.packed(count, length, time.monotonic() - begun)
            bandwidth.wait()
            _send(target, packed, memory[:count], moved)
            bandwidth.spend(HEADER.size + length)


def _queued(sock: socket.socket) -> int:
    """The bytes that the kernel still has to send, about."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def unpack_all(source: socket.socket, target: socket.socket, moved: Moved) -> None:
    """Move the memory out of frames; raises FrameError."""
    buffer = memoryview(bytearray(CHUNK))
    with _pipe() as (reader, writer):
        while head := source.recv(HEADER.size, socket.MSG_WAITALL):
            if len(head) < HEADER.size:
                raise _cut()
            kind, length = header(head)
            moved.wire += HEADER.size
            if kind is Kind.RAW:
                while length:
                    count = os.splice(source.fileno(), writer, length)
                    if not count:
                        raise _cut()
                    _drain(reader, target, count, moved)
                    length -= count
                continue
            if source.recv_into(buffer, length, socket.MSG_WAITALL) < length:
                raise _cut()
            memory = unpack(buffer[:length])
            moved.wire += length
            moved.memory += len(memory)
            target.sendall(memory)


def _send(target: socket.socket, packed: bytes | None, memory: memoryview, moved: Moved) -> None:
    moved.memory += len(memory)
    if packed is None:
        moved.wire += HEADER.size + len(memory)
        target.sendall(HEADER.pack(Kind.RAW, len(memory)), socket.MSG_MORE)
        target.sendall(memory)
    else:
        moved.wire += HEADER.size + len(packed)
        target.sendall(HEADER.pack(Kind.ZSTD, len(packed)) + packed)


def _drain(reader: int, target: socket.socket, count: int, moved: Moved) -> None:
    moved.wire += count
    moved.memory += count
    while count:
        count -= os.splice(reader, target.fileno(), count)


def _cut() -> FrameError:
    return FrameError("the other side ended in the middle of a frame")


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = large_pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)
