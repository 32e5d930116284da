"""The source's end of the link: answers what the page store lacks, what is urgent first.

Used on the source, in a post-copy, from the final dump until the destination says that it has all.
Two threads a link: one reads what is asked for, one answers it, piece by piece.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from phaul.errors import PageStoreError
from phaul.pages.remote.backing import Backing
from phaul.pages.remote.bell import Bell
from phaul.pages.remote.link import MOST_GIVEN, SIZE, Kind, Message, decode
from phaul.pages.remote.places import Places
from phaul.pages.store.index import PAGE

__all__ = ["Supply"]

_JOIN_S: Final = 10.0
_STALLED_S: Final = 5.0
"""A link that has not taken 256 KiB in this time is as good as lost."""
_MOST_WAITING: Final = 1 << 16
"""The most questions that may wait for their answers."""


class _Link:
    """One link: what was asked over it, and is not answered yet."""

    def __init__(self, sock: socket.socket, pages: int) -> None:
        self.sock = sock
        self.sent = bytearray(pages)
        """Of each page, by its number, whether it was sent over this link: then it arrives."""
        self.urgent: deque[Message] = deque()
        self.rest: deque[Message] = deque()
        self.done = False
        self.over = False
        self.threads: list[threading.Thread] = []

    def shut(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Supply(Bell):
    """Gives the pages of `places`, and no others, from the backing that `use` names.

    It rings at a change of `linked`, `error` or `done`: whether a link is there; why the memory is
    lost; whether the destination has all that it needs.
    Close it, from any thread.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places
        self._backing: Backing | None = None
        self._turn = threading.Lock()
        self._news = threading.Condition()
        self._link: _Link | None = None
        self._closed = False
        self.given = self.urgent = 0
        """How many pages were given, and how many of them because somebody waited."""
        self.error: PageStoreError | None = None
        self.done = not places.total

    @property
    def linked(self) -> bool:
        """Whether a link is there."""
        link = self._link
        return link is not None and not link.over

    @property
    def total(self) -> int:
        """How many pages there are to give."""
        return self._places.total

    @property
    def waiting(self) -> int:
        """How many questions wait for their answers."""
        link = self._link
        return 0 if link is None else len(link.urgent) + len(link.rest)

    def use(self, backing: Backing | None) -> None:
        """Take the pages from `backing` from now on; with None nothing is given until the next.

        On return the one before is not used any more, and stays the caller's.  Blocks while one
        piece is under way; the link is cut if that takes too long.
        """
        if not self._turn.acquire(timeout=_STALLED_S):
            link = self._link
            if link is not None:
                link.shut()
            self._turn.acquire()
        try:
            with self._news:
                self._backing = backing
                self._news.notify_all()
        finally:
            self._turn.release()

    def attach(self, sock: socket.socket) -> None:
        """Answer over a new link; the socket is this object's from now on.  The one before ends."""
        sock.setblocking(True)
        link = _Link(sock, self._places.total)
        self._detach()
        with self._news:
            self._link = link
        for target in (self._read, self._answer):
            thread = threading.Thread(
                target=self._run, args=(target, link), name="phaul-supply", daemon=True
            )
            link.threads.append(thread)
        for thread in link.threads:
            thread.start()
        if self.error is not None:
            self._fail(link, self.error)
        self._tell()

    def _run(self, target: Callable[[_Link], None], link: _Link) -> None:
        try:
            target(link)
        except PageStoreError as error:
            self._fail(link, error)
        except OSError:
            pass  # the link is lost: the next one is asked for what has not arrived
        finally:
            with self._news:
                link.over = True
                self._news.notify_all()
            link.shut()
            self._tell()

    def _read(self, link: _Link) -> None:
        while data := link.sock.recv(SIZE, socket.MSG_WAITALL):
            try:
                message = decode(data)
                self._check(message)
            except PageStoreError:
                return  # not one of ours, or cut off: the link is of no use
            with self._news:
                if message.kind is Kind.DONE:
                    self.done = link.done = True
                elif len(link.urgent) + len(link.rest) > _MOST_WAITING:
                    return
                else:
                    (link.urgent if message.urgent else link.rest).append(message)
                self._news.notify_all()

    def _check(self, message: Message) -> None:
        """CRIU ends when it is asked for what it does not have: so it never is."""
        if message.kind is Kind.DONE:
            return
        found = self._places.number(message.pagemap, message.address)
        if message.kind is not Kind.ASK or found is None or found[1] < message.pages:
            raise PageStoreError(f"what was asked for was never left out: {message}")

    def _answer(self, link: _Link) -> None:
        while (message := self._next(link)) is not None:
            if message.kind is Kind.DONE:
                link.sock.sendall(message.encode())
                return
            count = self._give(message, link)
            if count < message.pages:
                rest = Message(
                    Kind.ASK,
                    message.pagemap,
                    message.address + count * PAGE,
                    message.pages - count,
                    message.urgent,
                )
                with self._news:
                    (link.urgent if message.urgent else link.rest).appendleft(rest)

    def _give(self, message: Message, link: _Link) -> int:
        """Give the first of the pages that were asked for; how many are done with.

        What is swept, and then waited for, is asked for twice, and given once.
        """
        found = self._places.number(message.pagemap, message.address)
        assert found is not None  # it was looked at when it was asked for
        first, most = found[0], min(message.pages, MOST_GIVEN)
        asked = link.sent[first : first + most]
        if asked[0]:
            return most - len(asked.lstrip(b"\1"))
        most = len(asked.partition(b"\1")[0])
        part = Message(Kind.ASK, message.pagemap, message.address, most, message.urgent)
        with self._turn:
            count = 0 if self._backing is None else self._backing.give(part, link.sock)
        link.sent[first : first + count] = b"\1" * count
        self.given += count
        self.urgent += count if message.urgent else 0
        return count

    def _next(self, link: _Link) -> Message | None:
        """What is to be answered next, once there is something, and somebody who has the pages."""
        with self._news:
            while True:
                if self._closed or self._link is not link:
                    return None
                if link.done:
                    return Message(Kind.DONE)
                if link.over:
                    return None
                if self._backing is not None:
                    if link.urgent:
                        return link.urgent.popleft()
                    if link.rest:
                        return link.rest.popleft()
                self._news.wait()

    def finish(self) -> None:
        """The destination is known to have all, though it could not say so itself."""
        self.done = True
        self._tell()

    def fail(self, error: PageStoreError) -> None:
        """The memory is lost: whoever waits for it over there is told at once."""
        self._fail(self._link, error)

    def _fail(self, link: _Link | None, error: PageStoreError) -> None:
        self.error = self.error or error
        if link is not None:
            # Not from the thread that answers: it may be in the middle of one.
            with self._turn, suppress(OSError):
                link.sock.sendall(Message(Kind.LOST).encode())
        self._tell()

    def _detach(self) -> None:
        with self._news:
            link, self._link = self._link, None
            if link is not None:
                link.over = True
            self._news.notify_all()
        if link is not None:
            link.shut()
            for thread in link.threads:
                thread.join(_JOIN_S)
            link.sock.close()

    def close(self) -> None:
        """End the link and the threads; may be called again.  The backing stays the caller's."""
        self._closed = True
        self._detach()
        self._silence()
