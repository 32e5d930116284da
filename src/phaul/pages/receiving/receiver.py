"""Receives what CRIU sends while it dumps: phaul's own page server, for one round.

Used on the destination, in a thread, from a round's start until CRIU has sent all.  Where it is put
is a `Shelf`'s to say.  As CRIU's own does, it says that all is there before the files are complete:
so nothing may read them before their owner says so.
"""

import os
import socket
import struct
from contextlib import closing
from typing import Final, Protocol

from phaul.errors import PageStoreError
from phaul.pages.pageserver import CLOSED, PRESENT
from phaul.pages.pipes import SIZE, large_pipe
from phaul.pages.receiving.file import PagesFile
from phaul.pages.receiving.wire import Add, Ask, Close, Commands, Map, Open
from phaul.pages.store.index import PAGE

__all__ = ["Place", "Reader", "Shelf", "receive"]

_BUFFER: Final = 1 << 18
_NUMBER: Final = struct.Struct("=i")


class Place(Protocol):
    """Where one page map goes, and its pages."""

    @property
    def file(self) -> PagesFile: ...  # noqa: D102

    def add(self, address: int, pages: int, flags: int) -> None:
        """Note a range; raises PageStoreError if it is out of order."""


class Shelf(Protocol):
    """Where all of a round goes."""

    def open(self, of: Map) -> Place:
        """Make a place for a page map; raises OSError, and PageStoreError if it has one."""

    def in_parent(self, of: Map) -> bool:
        """Whether the round before has this page map."""


class Reader:
    """What comes from a socket: small pieces by way of a buffer, large ones directly.

    Close it; the socket stays the caller's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pipe: tuple[int, int] | None = None
        self._buffer = memoryview(bytearray(_BUFFER))
        self._at = self._end = 0

    @property
    def rest(self) -> int:
        """The bytes that came and were not taken."""
        return self._end - self._at

    def fill(self, view: memoryview) -> None:
        """Fill all of `view`; raises PageStoreError if the source has ended."""
        done, wanted = 0, len(view)
        while done < wanted:
            part = min(self.rest, wanted - done)
            if part:
                view[done : done + part] = self._buffer[self._at : self._at + part]
                self._at += part
                done += part
            elif wanted - done >= _BUFFER:
                done += self._came(self._sock.recv_into(view[done:]))
            else:
                self._at, self._end = 0, self._came(self._sock.recv_into(self._buffer))

    def move(self, descriptor: int, offset: int, length: int) -> None:
        """Write the next `length` bytes to a file, from `offset` on; large pieces without a copy.

        Raises OSError, and PageStoreError if the source has ended.
        """
        end = offset + length
        while offset < end:
            if not self.rest and end - offset < _BUFFER:
                self._at, self._end = 0, self._came(self._sock.recv_into(self._buffer))
            if part := min(self.rest, end - offset):
                written = os.pwrite(descriptor, self._buffer[self._at : self._at + part], offset)
                self._at += written
                offset += written
            else:
                offset += self._splice(descriptor, offset, end - offset)

    def _splice(self, descriptor: int, offset: int, most: int) -> int:
        if self._pipe is None:
            self._pipe = large_pipe()
        reader, writer = self._pipe
        count = self._came(os.splice(self._sock.fileno(), writer, min(most, SIZE)))
        left = count
        while left:
            moved = os.splice(reader, descriptor, left, offset_dst=offset)
            offset, left = offset + moved, left - moved
        return count

    def close(self) -> None:
        """Close what is its own."""
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, few of them."""
        data = bytearray(size)
        with memoryview(data) as view:
            self.fill(view)
        return bytes(data)

    def _came(self, count: int) -> int:
        if not count:
            raise PageStoreError("the memory channel ended in the middle of a round")
        return count


def receive(sock: socket.socket, commands: Commands, shelf: Shelf) -> None:
    """Take one round in, until CRIU has sent all of it, and tell CRIU so.

    Raises PageStoreError, and OSError of the files or the socket.
    """
    with closing(Reader(sock)) as reader:
        _receive(sock, reader, commands, shelf)


def _receive(sock: socket.socket, reader: Reader, commands: Commands, shelf: Shelf) -> None:
    open_map: Map | None = None
    place: Place | None = None
    while True:
        match commands.decode(reader.take(commands.size)):
            case Add(map=of, address=address, pages=pages, flags=flags):
                if place is None or of != open_map:
                    raise PageStoreError(f"criu sent pages of {of}, which is not open")
                place.add(address, pages, flags)
                if flags & PRESENT:
                    place.file.take(reader, pages * PAGE)
            case Open(map=of, answered=answered):
                open_map, place = of, shelf.open(of)
                if answered:
                    sock.sendall(bytes([shelf.in_parent(of)]))
            case Ask(map=of):
                sock.sendall(_NUMBER.pack(shelf.in_parent(of)))
            case Close():
                if reader.rest:
                    raise PageStoreError(f"criu sent {reader.rest} bytes after the end of a round")
                sock.sendall(CLOSED)
                return
