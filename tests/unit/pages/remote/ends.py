"""The two ends of a link for the tests, and a backing that is no CRIU."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phaul.errors import PageStoreError
from phaul.pages.remote import Places, RemotePages, Supply
from phaul.pages.remote.link import SIZE, Kind, Message, decode
from phaul.pages.store.index import PAGE

RANGES = {7: [(0x10000, 700), (0x800000, 90)], 8: [(0x10000, 5)]}
WAIT_S = 20


def content(pagemap: int, address: int) -> bytes:
    """What a page holds."""
    return struct.pack("<QQ", pagemap, address).ljust(PAGE, b"\x5a")


class Memory:
    """Gives at most `most` pages at once; `gate` holds it up, `error` is raised instead."""

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self.gate = threading.Event()
        self.gate.set()
        self.error: PageStoreError | None = None
        self.given: list[Message] = []

    def give(self, asked: Message, link: socket.socket) -> int:
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        pages = min(asked.pages, self.most)
        self.given.append(asked)
        link.sendall(Message(Kind.PAGES, asked.pagemap, asked.address, pages).encode())
        for number in range(pages):
            link.sendall(content(asked.pagemap, asked.address + number * PAGE))
        return pages

    def close(self) -> None:
        pass


@contextmanager
def supplying(memory: Memory | None) -> Iterator[Supply]:
    """The source's end."""
    supply = Supply(Places(RANGES))
    supply.use(memory)
    try:
        yield supply
    finally:
        if memory is not None:
            memory.gate.set()
        supply.close()
        supply.close()


@contextmanager
def fetching(patience: float = 600) -> Iterator[RemotePages]:
    """The destination's end, whose file is number 3."""
    descriptor = os.memfd_create("pages")
    remote = RemotePages(Places(RANGES), descriptor, 3, patience=patience, host="there")
    try:
        yield remote
    finally:
        remote.close()
        remote.close()
        os.close(descriptor)


def page(remote: RemotePages, pagemap: int, address: int) -> bytes:
    """The bytes of one page, when it is there."""
    found = remote.piece(pagemap, address, 1)
    assert (found.file, found.pages) == (3, 1)
    return os.pread(remote.descriptor, PAGE, found.offset)


def await_that(what: Callable[[], object]) -> None:
    """Until it is so."""
    until = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < until, "it does not become so"
        time.sleep(0.001)


def hear(sock: socket.socket) -> Message:
    """The next message of a link, without what follows it."""
    return decode(sock.recv(SIZE, socket.MSG_WAITALL))


def hear_pages(sock: socket.socket) -> Message:
    """The next PAGES of a link, whose content is checked."""
    found = hear(sock)
    assert found.kind is Kind.PAGES
    for number in range(found.pages):
        data = sock.recv(PAGE, socket.MSG_WAITALL)
        assert data == content(found.pagemap, found.address + number * PAGE)
    return found
