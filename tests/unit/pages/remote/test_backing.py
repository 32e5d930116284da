"""Where the source takes the pages from: a frozen tree's memory, and CRIU's pipes."""

import ctypes
import mmap
import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from phaul.errors import PageStoreError
from phaul.pages import pipes
from phaul.pages.pageserver import CLOSED
from phaul.pages.remote import CriuPages, TreeMemory, backing
from phaul.pages.remote.link import MOST_GIVEN, Kind, Message
from phaul.pages.store.index import PAGE
from phaul.pages.store.wire import Close, Get, Wire
from tests.unit.pages.remote.ends import content, hear, hear_pages

WIRE = Wire(wide=True)
AT = 0x10000


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A link's two ends, the first one the backing's."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        end.settimeout(20)
    with ours, theirs:
        yield ours, theirs


Link = tuple[socket.socket, socket.socket]


class TestTree:
    """The memory of a process, by /proc/PID/mem; here it is our own."""

    def test_it_is_read(self, link: Link) -> None:
        with mmap.mmap(-1, 3 * PAGE) as memory:
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            for number in range(3):
                at = number * PAGE
                memory[at : at + PAGE] = content(7, address + at)
            tree = TreeMemory({7: os.getpid()})
            assert tree.give(Message(Kind.ASK, 7, address, 3), link[0]) == 3
            assert hear_pages(link[1]).pages == 3
            tree.close()
            tree.close()

    def test_what_cannot_be_read_is_told(self, link: Link) -> None:
        tree = TreeMemory({7: os.getpid()})
        for pagemap, address in ((7, 0), (7, (1 << 63) + AT), (8, AT)):
            with pytest.raises(PageStoreError, match=f"process {pagemap} cannot be read"):
                tree.give(Message(Kind.ASK, pagemap, address, 1), link[0])
        tree.close()

    def test_a_process_that_has_ended_has_no_memory(self, link: Link) -> None:
        with subprocess.Popen(["true"]) as process:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            tree = TreeMemory({7: process.pid})
            with pytest.raises(PageStoreError, match="process 7 cannot be read"):
                tree.give(Message(Kind.ASK, 7, AT, 1), link[0])

    def test_one_that_ends_while_it_is_read(
        self, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "pread", lambda *_: b"")
        with pytest.raises(PageStoreError, match="process 7 has ended"):
            TreeMemory({7: os.getpid()}).give(Message(Kind.ASK, 7, AT, 1), link[0])


class Server:
    """A page server for the tests: gives at most `most` pages; `answer` is given instead."""

    def __init__(self) -> None:
        self.most = 1 << 16
        self.answer: bytes | None = None
        self.asked: list[Get] = []
        ours, self.sock = socket.socketpair()
        self.pages = CriuPages(ours, WIRE)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self.sock:
            while data := self.sock.recv(WIRE.size, socket.MSG_WAITALL):
                question = WIRE.decode(data)
                if self.answer is not None:
                    self.sock.sendall(self.answer)
                    return
                if isinstance(question, Close):
                    self.sock.sendall(CLOSED)
                    return
                self.asked.append(question)
                pages = min(question.pages, self.most)
                self.sock.sendall(WIRE.answer(question, pages))
                for number in range(pages):
                    at = question.address + number * PAGE
                    self.sock.sendall(content(question.pagemap, at))


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.pages.close()
    found.pages.close()
    found.thread.join(20)
    assert not found.thread.is_alive()


def ask(pages: int, number: int = 0) -> Message:
    return Message(Kind.ASK, 7, AT + number * PAGE, pages)


def test_criu_is_asked_and_its_pages_go_on(server: Server, link: Link) -> None:
    assert server.pages.give(ask(MOST_GIVEN), link[0]) == MOST_GIVEN
    assert hear_pages(link[1]).pages == MOST_GIVEN
    server.most = 3
    assert server.pages.give(ask(5, 9), link[0]) == 3
    assert hear_pages(link[1]) == Message(Kind.PAGES, 7, AT + 9 * PAGE, 3)
    server.pages.say_done()


def test_a_small_pipe_makes_small_pieces(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "SIZE", 1 << 16)
    server = Server()
    assert server.pages.give(ask(MOST_GIVEN), link[0]) == 8
    server.pages.close()
    server.thread.join(20)


def test_after_a_link_that_broke_the_next_gets_what_it_asks_for(server: Server, link: Link) -> None:
    link[1].close()
    for _ in range(2):
        with pytest.raises(OSError, match="Broken pipe"):
            server.pages.give(ask(MOST_GIVEN), link[0])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert server.pages.give(ask(2, 5), ours) == 2
        assert hear_pages(theirs) == Message(Kind.PAGES, 7, AT + 5 * PAGE, 2)


def test_a_link_that_breaks_in_the_middle_of_an_answer(server: Server) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:

        def hear_a_part() -> None:
            hear(theirs)
            theirs.recv(PAGE, socket.MSG_WAITALL)
            theirs.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=hear_a_part)
        thread.start()
        with pytest.raises(OSError, match=r"pipe|reset"):
            server.pages.give(ask(MOST_GIVEN), ours)
        thread.join(20)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert server.pages.give(ask(2, 5), ours) == 2
        assert hear_pages(theirs) == Message(Kind.PAGES, 7, AT + 5 * PAGE, 2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "it has ended"),
        (WIRE.answer(Get(7, AT, 2), 2) + bytes(PAGE), "it has ended"),
        (WIRE.answer(Get(7, AT + PAGE, 2), 2), "is no answer to"),
        (WIRE.answer(Get(8, AT, 2), 2), "is no answer to"),
        (WIRE.answer(Get(7, AT, 9), 9), "is no answer to"),
        (b"\xff" * WIRE.size, "answered with the command"),
    ],
)
def test_what_criu_does_not_give_is_lost_and_nothing_is_said(
    answer: bytes, said: str, server: Server, link: Link
) -> None:
    server.answer = answer
    with pytest.raises(PageStoreError, match=said):
        server.pages.give(ask(2), link[0])
    link[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        link[1].recv(1)


def test_a_silent_criu_is_not_waited_for_for_ever(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing, "_WAIT_S", 0.05)
    ours, theirs = socket.socketpair()
    pages = CriuPages(ours, WIRE)
    with theirs:
        with pytest.raises(PageStoreError, match="timed out"):
            pages.give(ask(2), link[0])
        theirs.sendall(WIRE.answer(Get(7, AT, 2), 2))
        with pytest.raises(PageStoreError, match="it is silent"):
            pages.give(ask(2), link[0])
        with pytest.raises(PageStoreError, match="timed out"):
            pages.say_done()
    with pytest.raises(PageStoreError, match="pipe"):
        pages.say_done()
    pages.close()


def test_it_does_not_end_in_order(server: Server) -> None:
    server.answer = b""
    with pytest.raises(PageStoreError, match="does not end in order"):
        server.pages.say_done()
