"""The store's service where some of the pages are still on the source."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from phaul.errors import PageStoreError
from phaul.pages.pageserver import CLOSED
from phaul.pages.store import Index, Level, PageStore, Piece, Where, Wire, socket_pair
from phaul.pages.store.index import PAGE
from phaul.pages.store.wire import Close, Get

WIRE = Wire(wide=True)
AT = 0x10000
HERE, ELSEWHERE = Where.HERE, Where.ELSEWHERE


class Source:
    """Brings the pages of file 1 when its gate is open; takes note of who waits for what."""

    def __init__(self) -> None:
        self.wanted: list[tuple[int, int, int]] = []
        self.gate = threading.Event()
        self.news = threading.Event()
        self.error: PageStoreError | None = None

    def want(self, pagemap: int, address: int, pages: int) -> None:
        self.wanted.append((pagemap, address, pages))
        self.news.set()

    def piece(self, pagemap: int, address: int, pages: int) -> Piece:
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return Piece(1, address - AT, min(pages, 2))


class Service:
    """A store that serves, with four pages here and the eight behind them on the source."""

    def __init__(self) -> None:
        self.source = Source()
        self.files = [os.memfd_create("here"), os.memfd_create("there")]
        for number, file in enumerate(self.files):
            os.write(file, b"".join(bytes([16 * number + i]) * PAGE for i in range(12)))
        index = Index()
        index.add(7, Level(0, [(AT, 4, HERE), (AT + 4 * PAGE, 8, ELSEWHERE)]))
        self.store = PageStore(index, self.files, WIRE, self.source)
        self.ours, self.daemon = socket_pair()
        self.result: bool | BaseException | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.result = self.store.serve(self.ours)
        except PageStoreError as error:
            self.result = error

    def ask(self, number: int, pages: int) -> None:
        self.daemon.sendall(WIRE.encode(Get(7, AT + number * PAGE, pages)))

    def answer(self) -> list[int]:
        found = WIRE.answered(self.daemon.recv(WIRE.size, socket.MSG_WAITALL))
        data = self.daemon.recv(found.pages * PAGE, socket.MSG_WAITALL)
        return [data[at] for at in range(0, len(data), PAGE)]

    def ends(self) -> bool | BaseException | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.result


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.source.gate.set()
    found.daemon.close()
    found.ends()
    found.ours.close()
    for descriptor in found.files:
        os.close(descriptor)


def test_an_answer_ends_with_the_first_piece_from_the_source(service: Service) -> None:
    service.source.gate.set()
    service.ask(2, 8)
    assert service.answer() == [2, 3]
    service.ask(4, 8)
    assert service.answer() == [20, 21]
    service.daemon.sendall(WIRE.encode(Close()))
    assert service.daemon.recv(len(CLOSED), socket.MSG_WAITALL) == CLOSED
    assert service.ends() is True


def test_all_that_is_asked_for_is_wanted_while_the_first_is_waited_for(service: Service) -> None:
    for number in (4, 2, 9, 0):
        service.ask(number, 3)
    while len(service.source.wanted) < 3:
        assert service.source.news.wait(20)
        service.source.news.clear()
    service.source.gate.set()
    assert [service.answer() for _ in range(4)] == [[20, 21], [2, 3], [25, 26], [0, 1, 2]]
    assert service.source.wanted == [
        (7, AT + 4 * PAGE, 3),
        (7, AT + 4 * PAGE, 1),
        (7, AT + 9 * PAGE, 3),
    ]


def test_memory_that_is_lost_is_told(service: Service) -> None:
    service.source.error = PageStoreError("3 pages are lost")
    service.source.gate.set()
    service.ask(5, 1)
    assert service.ends() is service.source.error


def test_what_no_image_has_is_not_wanted(service: Service) -> None:
    service.ask(20, 1)
    assert "is in no image" in str(service.ends())
    assert service.source.wanted == []


def test_what_is_no_question_is_told(service: Service) -> None:
    service.daemon.sendall(b"\xff" * WIRE.size)
    assert "unknown command" in str(service.ends())


def test_a_daemon_that_is_gone(service: Service) -> None:
    service.daemon.shutdown(socket.SHUT_RDWR)
    assert service.ends() is False
