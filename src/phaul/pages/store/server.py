"""The page store's service: answers one CRIU daemon, question by question, out of page files.

Used on the destination, in a thread, from the restore until the last page is in.  The pages go from
the page cache into the socket without a copy (sendfile).

It never ends the conversation by itself: a daemon that sees its socket closed ends, and the memory
that was not yet there then reads as zeros.  So after an error it just stops answering; whoever owns
it ends the process first, and then closes the socket.
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from phaul.errors import PageStoreError
from phaul.pages.buffers import make_room
from phaul.pages.pageserver import CLOSED
from phaul.pages.store.index import PAGE, Index, Missing, Piece
from phaul.pages.store.served import Stretches
from phaul.pages.store.wire import Close, Get, Wire

__all__ = ["PageStore", "Remote", "Served", "socket_pair"]

_BUFFER: Final = 8 << 20
"""Room for questions and answers, in bytes: CRIU asks without waiting, once for each thread that
waits for a page, and gives up where there is no room for it."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """A pair for the store and the daemon, with room enough; nobody else can reach it."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        make_room(end, _BUFFER)
    return pair


@dataclass(frozen=True)
class Served:
    """What was given: `pages` in `answers`, in the `seconds` from the first to the last.

    A page counts twice if two processes asked for it, after a fork.  `first_s` and `last_s` are
    moments of the monotonic clock, 0 where nobody asked.
    """

    pages: int
    answers: int
    first_s: float
    last_s: float

    @property
    def seconds(self) -> float:
        """From the first question to the last."""
        return self.last_s - self.first_s


class Remote(Protocol):
    """Brings pages that are known to be on the source."""

    def want(self, pagemap: int, address: int, pages: int) -> None:
        """Somebody waits for these pages, or will: have them brought first."""

    def piece(self, pagemap: int, address: int, pages: int) -> Piece:
        """Where the first of the pages is, with those beside it; waits.  Raises PageStoreError."""


class PageStore:
    """Answers what `wire` reads, from `index` and the open files that its numbers mean.

    What is on the source is brought by `remote`, if there is one, into one of those files.
    """

    def __init__(
        self, index: Index, files: Sequence[int], wire: Wire, remote: Remote | None = None
    ) -> None:
        self._index = index
        self._files = files
        self._wire = wire
        self._remote = remote
        self._given: dict[int, Stretches] = {}
        self._pages = self._answers = 0
        self._first = self._last = 0.0

    @property
    def served(self) -> Served:
        """What was given so far, from any thread."""
        return Served(self._pages, self._answers, self._first, self._last)

    def lacking(self, pagemap: int, ranges: Iterable[tuple[int, int]]) -> int:
        """How many pages of `ranges` (address, pages) nobody has asked for; once it has ended."""
        given = self._given.get(pagemap, Stretches())
        return sum(given.lacking(at, at + pages * PAGE) for at, pages in ranges) // PAGE

    def serve(self, sock: socket.socket) -> bool:
        """Answer until the daemon says that it has all, or is gone; returns whether it said so.

        Raises PageStoreError: a page is missing, or what was asked is no question.
        """
        try:
            for question in self._questions(sock):
                if isinstance(question, Close):
                    sock.sendall(CLOSED)
                    return True
                self._first = self._first or time.monotonic()
                self._answer(sock, question)
                self._last = time.monotonic()
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            raise PageStoreError(f"pages cannot be given: {error.strerror}") from error
        return False

    def _questions(self, sock: socket.socket) -> Iterator[Get | Close]:
        if self._remote is None:
            return self._read(sock)
        return self._read_ahead(sock, self._remote)

    def _read(self, sock: socket.socket) -> Iterator[Get | Close]:
        while data := sock.recv(self._wire.size, socket.MSG_WAITALL):
            yield self._wire.decode(data)

    def _read_ahead(self, sock: socket.socket, remote: Remote) -> Iterator[Get | Close]:
        """The questions, each asked for on the source as soon as it is there.

        They are answered in their order, but need not wait for the way to the source one by one.
        """
        waiting: queue.SimpleQueue[Get | Close | BaseException | None] = queue.SimpleQueue()

        def read() -> None:
            end: BaseException | None = None
            try:
                for question in self._read(sock):
                    if isinstance(question, Get):
                        self._want(question, remote)
                    waiting.put(question)
            except (OSError, PageStoreError) as error:
                end = error
            finally:
                waiting.put(end)

        threading.Thread(target=read, name="phaul-questions", daemon=True).start()
        while (found := waiting.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found

    def _want(self, question: Get, remote: Remote) -> None:
        """Have brought what an answer to the question would begin with."""
        address, left = question.address, question.pages
        while left:
            found = self._index.find(question.pagemap, address, left)
            if isinstance(found, Missing):
                if found.elsewhere:
                    remote.want(question.pagemap, address, found.pages)
                return
            address += found.pages * PAGE
            left -= found.pages

    def _answer(self, sock: socket.socket, question: Get) -> None:
        pieces = list(self._pieces(question))
        pages = sum(piece.pages for piece in pieces)
        sock.sendall(self._wire.answer(question, pages), socket.MSG_MORE)
        for piece in pieces:
            self._send(sock, piece)
        self._pages += pages
        self._answers += 1
        start = question.address
        self._given.setdefault(question.pagemap, Stretches()).add(start, start + pages * PAGE)

    def _pieces(self, question: Get) -> Iterator[Piece]:
        """Where what is asked for lies, up to the first page that is missing; never none."""
        address, left = question.address, question.pages
        while left:
            found = self._index.find(question.pagemap, address, left)
            if isinstance(found, Missing):
                if left < question.pages:
                    return  # the rest is asked for again
                if found.elsewhere and self._remote is not None:
                    yield self._remote.piece(question.pagemap, address, found.pages)
                    return
                where = "is still on the source" if found.elsewhere else "is in no image"
                raise PageStoreError(
                    f"the page at {address:#x} of process {question.pagemap} {where}"
                )
            yield found
            address += found.pages * PAGE
            left -= found.pages

    def _send(self, sock: socket.socket, piece: Piece) -> None:
        offset, left = piece.offset, piece.pages * PAGE
        while left:
            sent = os.sendfile(sock.fileno(), self._files[piece.file], offset, left)
            if not sent:
                raise PageStoreError(f"a pages file ends before byte {offset}")
            offset += sent
            left -= sent
