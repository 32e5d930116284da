"""Where the source takes the pages from that it is asked for.

Used on the source, in a post-copy, by `Supply` alone.  Until the commit the tree stands frozen, and
is read (`TreeMemory`): so CRIU is still held in `post-dump`, and can let it run on.  Then the tree
is killed, and CRIU, which has its pages in pipes, serves them (`CriuPages`).
"""

import fcntl
import os
import select
import socket
from collections.abc import Mapping
from typing import Final, Protocol

from phaul.errors import PageStoreError
from phaul.pages.pageserver import CLOSED
from phaul.pages.pipes import large_pipe
from phaul.pages.remote.link import Kind, Message
from phaul.pages.store.index import PAGE
from phaul.pages.store.wire import Close, Get, Wire

__all__ = ["Backing", "CriuPages", "TreeMemory"]

_WAIT_S: Final = 60.0
"""How long CRIU may take for an answer; it takes some 20 microseconds."""


class Backing(Protocol):
    """Gives pages; every page that it is asked for is one that the dump left out."""

    def give(self, asked: Message, link: socket.socket) -> int:
        """Send one PAGES for the first of the pages asked for, all or fewer; how many they were.

        Raises PageStoreError, with nothing sent, if the memory is lost, OSError if the link is.
        """

    def close(self) -> None:
        """Give up what it holds; may be called again."""


class TreeMemory:
    """The memory of a tree that stands still, by /proc/PID/mem; `pids` are by page map.

    Opened anew for each question: a restore asks for a few pages of a few processes.
    """

    def __init__(self, pids: Mapping[int, int]) -> None:
        self._pids = pids

    def give(self, asked: Message, link: socket.socket) -> int:
        """Send what was asked for; see `Backing`."""
        size = asked.pages * PAGE
        try:
            path = f"/proc/{self._pids[asked.pagemap]}/mem"
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(file, size, asked.address)
            finally:
                os.close(file)
        except (OSError, OverflowError, KeyError) as error:
            raise PageStoreError(
                f"process {asked.pagemap} cannot be read at {asked.address:#x}: {error}"
            ) from error
        if len(data) < size:
            raise PageStoreError(f"process {asked.pagemap} has ended: its memory is gone")
        link.sendall(_head(asked, asked.pages), socket.MSG_MORE)
        link.sendall(data)
        return asked.pages

    def close(self) -> None:
        """It holds nothing; see `Backing`."""


class CriuPages:
    """CRIU's page server at the other end of `sock`, which is this object's from now on.

    `wire` is the one of this host's CRIU.  The pages go from its pipes to the link without a copy.
    """

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock = sock
        self._sock.settimeout(_WAIT_S)
        self._wire = wire
        self._reader, self._writer = large_pipe()
        # Each page takes a place in the pipe, of which it has one for each 4 KiB; half are spare.
        self._most = fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ) // PAGE // 2
        self._ready = select.poll()
        self._ready.register(sock, select.POLLIN)

    def give(self, asked: Message, link: socket.socket) -> int:
        """Send what was asked for, as far as CRIU has it in one piece; see `Backing`."""
        pages = self._ask(Get(asked.pagemap, asked.address, min(asked.pages, self._most)))
        size = pages * PAGE
        self._fill(size)  # all of it, before a word is said: what is begun can be ended
        try:
            link.sendall(_head(asked, pages), socket.MSG_MORE)
            while size:
                size -= os.splice(self._reader, link.fileno(), size)
        except OSError:
            while size:
                size -= len(os.read(self._reader, size))
            raise
        return pages

    def _ask(self, question: Get) -> int:
        try:
            self._sock.sendall(self._wire.encode(question))
            data = self._sock.recv(self._wire.size, socket.MSG_WAITALL)
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if not data:
            raise self._lost("it has ended")
        answer = self._wire.answered(data)
        alike = answer.pagemap == question.pagemap and answer.address == question.address
        if not alike or not 0 < answer.pages <= question.pages:
            raise self._lost(f"{answer} is no answer to {question}")
        return answer.pages

    def _fill(self, size: int) -> None:
        while size:
            if not self._ready.poll(int(_WAIT_S * 1000)):
                raise self._lost("it is silent")
            try:
                count = os.splice(self._sock.fileno(), self._writer, size)
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
            if not count:
                raise self._lost("it has ended")
            size -= count

    def _lost(self, why: str) -> PageStoreError:
        return PageStoreError(f"criu, which has the memory, cannot be asked for it: {why}")

    def say_done(self) -> None:
        """Let CRIU end, as it is not needed any more; raises PageStoreError if it has already."""
        try:
            self._sock.sendall(self._wire.encode(Close()))
            data = self._sock.recv(len(CLOSED), socket.MSG_WAITALL)
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if data != CLOSED:
            raise self._lost("it does not end in order")

    def close(self) -> None:
        """Close the socket, by which CRIU ends too; see `Backing`."""
        self._sock.close()
        for descriptor in (self._reader, self._writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._reader = self._writer = -1


def _head(asked: Message, pages: int) -> bytes:
    return Message(Kind.PAGES, asked.pagemap, asked.address, pages).encode()
