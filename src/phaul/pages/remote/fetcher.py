"""The destination's end of the link: has the pages that were left on the source brought here.

Used on the destination, in a post-copy, from the restore until the last page is in.  The pages go
to a sparse file, each to the place that its number has; who waits for one is woken when it is in.

    attach ---> over a link --lost--> no link: all waits --attach--> over the next one
                     |                         |
                     |                    too long, `give_up`, or the source says LOST
                  finish: no more              |
                  is needed                    v
                                      failed: whoever waits or asks is told, at once
"""

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from phaul.errors import PageStoreError
from phaul.pages.remote.bell import Bell
from phaul.pages.remote.link import MOST_ASKED, MOST_GIVEN, SIZE, Kind, Message, decode
from phaul.pages.remote.places import Places
from phaul.pages.remote.wanted import Wanted
from phaul.pages.store.index import PAGE, Piece

__all__ = ["RemotePages"]

_WINDOW: Final = 4096
"""How many pages may be on their way that nobody waits for, 16 MiB: what a link of 10 Gbit/s takes
in 13 ms.  They wait at the source, where what is urgent goes before them."""
_WAITED_FOR: Final = 16
"""How many pages are asked for as urgent where one is waited for: CRIU's own smallest transfer."""
_PATIENCE_S: Final = 600.0
_JOIN_S: Final = 10.0


class RemotePages(Bell):
    """The pages of `places`, in the open file `descriptor`, which the store knows as number `file`.

    Without a link for `patience` seconds it fails.  It rings at a change of `linked`, `error`,
    `complete` or `acknowledged`.  Close it, from any thread; the file stays the caller's.
    """

    def __init__(
        self,
        places: Places,
        descriptor: int,
        file: int,
        *,
        patience: float = _PATIENCE_S,
        host: str = "",
    ) -> None:
        super().__init__()
        self._places = places
        self.descriptor = descriptor
        self._file = file
        self._patience = patience
        self._host = host
        self._wanted = Wanted(places.total)
        self._news = threading.Condition()
        self._sending = threading.Lock()
        self._sock: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._alone_since = time.monotonic()
        self._sweeping = self._finished = self._closed = False
        self.acknowledged = False
        self.received = 0
        self.error: PageStoreError | None = None
        os.ftruncate(descriptor, places.total * PAGE)

    @property
    def linked(self) -> bool:
        """Whether a link is there."""
        return self._sock is not None

    @property
    def complete(self) -> bool:
        """Whether all pages are here."""
        return not self._wanted.lacking

    @property
    def lacking(self) -> int:
        """How many pages are still on the source alone."""
        return self._wanted.lacking

    def attach(self, sock: socket.socket) -> None:
        """Go on over a new link; the socket is this object's from now on.  The one before ends."""
        sock.setblocking(True)
        self._detach()
        thread = threading.Thread(
            target=self._receive, args=(sock,), name="phaul-remote-pages", daemon=True
        )
        with self._news:
            self._sock, self._thread = sock, thread
            again = list(self._wanted.awaited())
            finished = self._finished
            self._news.notify_all()
        thread.start()
        for first, count in again:
            self._ask(first, count, urgent=True)
        if finished:
            self._send(Message(Kind.DONE))
        self._sweep()
        self._tell()

    def sweep(self) -> None:
        """From now on bring what nobody waits for, too."""
        self._sweeping = True
        self._sweep()

    def finish(self) -> None:
        """No more is needed: the source may forget it; `acknowledged` when it says so."""
        with self._news:
            if self._finished:
                return
            self._finished = True
        self._send(Message(Kind.DONE))

    def give_up(self, why: str) -> None:
        """The source is lost, as far as the caller knows."""
        self._fail(why)

    def want(self, pagemap: int, address: int, pages: int) -> None:
        """Somebody waits for these pages, those of them that were left on the source."""
        found = self._places.number(pagemap, address)
        if found is None:
            return
        first, left = found
        with self._news:
            asks = list(self._wanted.urgent(first, min(pages, left, _WAITED_FOR)))
        for ask in asks:
            self._ask(*ask, urgent=True)

    def piece(self, pagemap: int, address: int, pages: int) -> Piece:
        """Where the first of `pages` pages is, with those that lie beside it; waits for it.

        Raises PageStoreError if the memory is lost, or was never left on the source.
        """
        found = self._places.number(pagemap, address)
        if found is None:
            raise PageStoreError(
                f"the page at {address:#x} of process {pagemap} was not left on the source",
                host=self._host,
            )
        first, left = found
        most = min(pages, left)
        if not self._wanted.here(first, 1):
            self.want(pagemap, address, most)
        with self._news:
            while not (count := self._wanted.here(first, most)):
                self._wait()
        return Piece(self._file, first * PAGE, count)

    def _wait(self) -> None:
        """Wait for news; raises PageStoreError if there can be none."""
        if self.error is not None:
            raise self.error
        if self._closed:
            raise PageStoreError("the memory is not asked for any more", host=self._host)
        if self._sock is not None:
            self._news.wait()
            return
        left = self._alone_since + self._patience - time.monotonic()
        if left <= 0:
            raise self._failed(f"there was no link to the source for {self._patience:g} s")
        self._news.wait(left)

    def _failed(self, why: str) -> PageStoreError:
        count = self._wanted.lacking
        return PageStoreError(
            f"{count} pages ({count * PAGE >> 10} KiB) of the process's memory are lost: {why}",
            host=self._host,
            remedy="start the process anew: no host has all of its memory any more",
        )

    def _fail(self, why: str) -> None:
        with self._news:
            self.error = self.error or self._failed(why)
            self._news.notify_all()
        self._tell()

    def _ask(self, first: int, count: int, *, urgent: bool) -> None:
        while count:
            pagemap, address, left = self._places.where(first)
            part = min(count, left, MOST_ASKED)
            self._send(Message(Kind.ASK, pagemap, address, part, urgent))
            first, count = first + part, count - part

    def _send(self, message: Message) -> None:
        """Say it, if there is a link; where it is lost the next one says it again."""
        with self._sending:
            sock = self._sock
            if sock is not None:
                with suppress(OSError):
                    sock.sendall(message.encode())

    def _sweep(self) -> None:
        """Ask for what nobody waits for, as far as there is room."""
        while True:
            with self._news:
                if (
                    not self._sweeping
                    or self._finished
                    or self._sock is None
                    or self._wanted.swept + MOST_ASKED > _WINDOW
                ):
                    return
                found = self._wanted.sweep(MOST_ASKED)
                if found is None:
                    return
                first, count = found
                part = min(count, self._places.where(first)[2])
                if part < count:
                    self._wanted.unsweep(first + part, count - part)
            self._ask(first, part, urgent=False)

    def _receive(self, sock: socket.socket) -> None:
        buffer = memoryview(bytearray(MOST_GIVEN * PAGE))
        try:
            while len(data := sock.recv(SIZE, socket.MSG_WAITALL)) == SIZE:
                message = decode(data)
                if message.kind is Kind.LOST:
                    self._fail("the source has it no more")
                elif message.kind is Kind.DONE:
                    self.acknowledged = True
                    self._tell()
                elif message.kind is Kind.PAGES:
                    part = buffer[: message.pages * PAGE]
                    if sock.recv_into(part, len(part), socket.MSG_WAITALL) < len(part):
                        break
                    self._take(message, part)
                    self._sweep()
                else:
                    raise PageStoreError(f"the source said {message.kind.name}")
        except PageStoreError as error:
            self._fail(error.what)
        except OSError:
            pass  # the link is lost, whatever it says
        finally:
            self._unlink(sock)

    def _take(self, message: Message, data: memoryview) -> None:
        found = self._places.number(message.pagemap, message.address)
        if found is None or found[1] < message.pages:
            raise PageStoreError(f"the source gave what was never left on it: {message}")
        first, offset = found[0], found[0] * PAGE
        try:
            while data:
                count = os.pwrite(self.descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise PageStoreError(f"what came cannot be written: {error.strerror}") from error
        with self._news:
            self.received += message.pages
            self._wanted.arrived(first, message.pages)
            complete = self.complete
            self._news.notify_all()
        if complete:
            self.finish()
            self._tell()

    def _unlink(self, sock: socket.socket) -> None:
        with self._news:
            if self._sock is sock:
                self._sock = None
                self._alone_since = time.monotonic()
                self._wanted.lost()
            self._news.notify_all()
        with self._sending:
            sock.close()
        self._tell()

    def _detach(self) -> None:
        sock, thread = self._sock, self._thread
        self._thread = None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if thread is not None:
            thread.join(_JOIN_S)

    def close(self) -> None:
        """End the link, and whoever waits; may be called again."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._detach()
        self._silence()
