"""The store's service, asked over a socket as CRIU's daemon does."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaul.errors import PageStoreError
from phaul.pages.store import Index, Level, PageStore, Where, Wire, socket_pair
from phaul.pages.store.index import PAGE
from phaul.pages.store.wire import Close, Get

WIRE = Wire(wide=True)


class Service:
    """A store that serves in a thread, and the daemon's end of its socket."""

    def __init__(self, folder: Path) -> None:
        self.files = []
        for number in range(2):
            path = folder / f"pages-{number}.img"
            path.write_bytes(b"".join(bytes([16 * number + i]) * PAGE for i in range(8)))
            self.files.append(os.open(path, os.O_RDONLY))
        index = Index()
        index.add(7, Level(0, [(0x10000, 8, Where.HERE)]))
        newer = [(0x10000, 3, Where.OLDER), (0x13000, 1, Where.HERE), (0x14000, 2, Where.OLDER)]
        index.add(7, Level(1, [*newer, (0x16000, 1, Where.ELSEWHERE)]))
        self.store = PageStore(index, self.files, WIRE)
        self.ours, self.daemon = socket_pair()
        self.result: bool | BaseException | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.result = self.store.serve(self.ours)
        except PageStoreError as error:
            self.result = error

    def ask(self, get: Get) -> bytes:
        self.daemon.sendall(WIRE.encode(get))
        return self.answer()

    def answer(self) -> bytes:
        found = WIRE.answered(self.daemon.recv(WIRE.size, socket.MSG_WAITALL))
        return self.daemon.recv(found.pages * PAGE, socket.MSG_WAITALL)

    def ends(self) -> bool | BaseException | None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.result

    def close(self) -> None:
        self.daemon.close()
        self.ends()
        self.ours.close()
        for descriptor in self.files:
            os.close(descriptor)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found = Service(tmp_path)
    yield found
    found.close()


def first_bytes(data: bytes) -> list[int]:
    assert len(data) % PAGE == 0
    return [data[at] for at in range(0, len(data), PAGE)]


def test_an_answer_is_made_of_what_each_round_has(service: Service) -> None:
    assert first_bytes(service.ask(Get(7, 0x11000, 4))) == [1, 2, 16, 4]
    service.daemon.sendall(WIRE.encode(Close()))
    service.ends()  # what was sent is noted after it was sent
    assert service.store.lacking(7, [(0x10000, 6)]) == 2
    assert service.store.lacking(8, [(0x10000, 6)]) == 6


def test_questions_may_be_asked_ahead(service: Service) -> None:
    for page in range(6):
        service.daemon.sendall(WIRE.encode(Get(7, 0x10000 + page * PAGE, 1)))
    assert [first_bytes(service.answer()) for _ in range(6)] == [[0], [1], [2], [16], [4], [5]]


def test_the_end_in_order(service: Service) -> None:
    service.ask(Get(7, 0x10000, 2))
    service.daemon.sendall(WIRE.encode(Close()))
    assert service.daemon.recv(4, socket.MSG_WAITALL) == bytes(4)
    assert service.ends() is True
    served = service.store.served
    assert (served.pages, served.answers) == (2, 1)
    assert served.seconds >= 0


def test_a_daemon_that_is_gone(service: Service) -> None:
    service.daemon.shutdown(socket.SHUT_RDWR)
    assert service.ends() is False
    assert service.store.served.seconds == 0


def test_before_a_missing_page_the_answer_is_shorter(service: Service) -> None:
    assert first_bytes(service.ask(Get(7, 0x14000, 4))) == [4, 5]


@pytest.mark.parametrize(
    ("get", "said"),
    [
        (Get(7, 0x16000, 2), "the page at 0x16000 of process 7 is still on the source"),
        (Get(7, 0x17000, 1), "the page at 0x17000 of process 7 is in no image"),
        (Get(9, 0x10000, 1), "the page at 0x10000 of process 9 is in no image"),
    ],
)
def test_a_missing_page_is_told_and_the_socket_stays_open(
    service: Service, get: Get, said: str
) -> None:
    service.daemon.sendall(WIRE.encode(get))
    assert said in str(service.ends())
    service.daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        service.daemon.recv(1)


def test_a_file_that_ends_early_is_told(service: Service, tmp_path: Path) -> None:
    os.truncate(tmp_path / "pages-0.img", PAGE)
    service.daemon.sendall(WIRE.encode(Get(7, 0x11000, 1)))
    assert "ends before" in str(service.ends())


def test_what_is_no_question_is_told(service: Service) -> None:
    service.daemon.sendall(b"\xff" * WIRE.size)
    assert "unknown command" in str(service.ends())
