"""A round that is received: all bytes where they belong, however they come; and what is none."""

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import PageStoreError
from phaul.pages.receiving import Commands, Kind, Map, PagesFile, receive
from phaul.pages.receiving.wire import Add, Ask, Close, Command, Open
from phaul.pages.store.index import PAGE

pytestmark = pytest.mark.usefixtures("no_leaks")
WIRE = Commands(wide=True)
ONE, TWO = Map(Kind.PROCESS, 1), Map(Kind.SHARED, 2)


@dataclass
class Kept:
    file: PagesFile
    ranges: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, address: int, pages: int, flags: int) -> None:
        self.ranges.append((address, pages, flags))


@dataclass
class Shelf:
    folder: Path
    room: list[int] = field(default_factory=list)
    """How much room the files have at first."""
    places: dict[Map, Kept] = field(default_factory=dict)

    def open(self, of: Map) -> Kept:
        path = self.folder / f"{of.kind.name}-{of.id}"
        file = PagesFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if self.room:
            file.grow(self.room.pop(0))
        return self.places.setdefault(of, Kept(file))

    def in_parent(self, of: Map) -> bool:
        return of == TWO

    def finish(self) -> dict[Map, bytes]:
        found = {}
        for of, place in self.places.items():
            place.file.finish()
            place.file.close()
            place.file.close()
            found[of] = (self.folder / f"{of.kind.name}-{of.id}").read_bytes()
        return found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def pages(count: int, seed: int) -> bytes:
    """Each page another."""
    return b"".join((seed * 7919 + number).to_bytes(8, "little") * 512 for number in range(count))


def play(sock: socket.socket, *said: tuple[Command, bytes]) -> list[bytes]:
    """Send, and take the answers to what wants one."""
    answers = []
    for command, data in said:
        sock.sendall(WIRE.encode(command) + data)
        if isinstance(command, Open) and command.answered:
            answers.append(sock.recv(1))
        elif isinstance(command, Ask | Close):
            answers.append(sock.recv(4, socket.MSG_WAITALL))
    return answers


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.sampled_from([1, 2, 63, 64, 65, 200]), min_size=1, max_size=8),
    room=st.lists(st.sampled_from([1, PAGE, 64 * PAGE, 300 * PAGE]), max_size=1),
)
def test_all_pages_are_in_the_file_in_their_order(
    counts: list[int], room: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the room that was made, by the buffer, and spliced."""
    shelf = Shelf(tmp_path_factory.mktemp("pages"), room)
    said: list[tuple[Command, bytes]] = [(Open(ONE, answered=True), b"")]
    address, sent = PAGE, b""
    for seed, count in enumerate(counts):
        data = pages(count, seed)
        said += [(Add(ONE, address, count, 4), data), (Add(ONE, address + count * PAGE, 1, 1), b"")]
        address, sent = address + (count + 1) * PAGE, sent + data
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=receive, args=(ours, WIRE, shelf))
        thread.start()
        answers = play(theirs, *said, (Close(), b""))
        thread.join()
    assert answers == [b"\0", bytes(4)]
    assert len(shelf.places[ONE].ranges) == 2 * len(counts)
    assert shelf.finish() == {ONE: sent}


def test_several_maps(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    thread = threading.Thread(target=receive, args=(pair[0], WIRE, shelf))
    thread.start()
    answers = play(
        pair[1],
        (Ask(ONE), b""),
        (Ask(TWO), b""),
        (Open(TWO, answered=True), b""),
        (Add(TWO, 0, 1, 4), pages(1, 1)),
        (Open(ONE, answered=False), b""),
        (Add(ONE, 0, 2, 6), pages(2, 2)),
        (Close(), b""),
    )
    thread.join()
    assert answers == [bytes(4), b"\1\0\0\0", b"\1", bytes(4)]
    assert shelf.finish() == {TWO: pages(1, 1), ONE: pages(2, 2)}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "ended in the middle"),
        (WIRE.encode(Open(ONE, answered=False)) + bytes(5), "ended in the middle"),
        (WIRE.encode(Add(ONE, 0, 1, 4)) + bytes(PAGE), "not open"),
        (
            WIRE.encode(Open(TWO, answered=False)) + WIRE.encode(Add(ONE, 0, 1, 4)) + bytes(PAGE),
            "not open",
        ),
        (
            WIRE.encode(Open(ONE, answered=False)) + WIRE.encode(Add(ONE, 0, 100, 4)) + bytes(PAGE),
            "ended in the middle",
        ),
        (WIRE.encode(Close()) + b"more", "after the end"),
        (b"\xff" * 32, "unknown"),
    ],
)
def test_what_is_no_round(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, data: bytes, error: str
) -> None:
    shelf = Shelf(tmp_path)
    pair[1].sendall(data)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(PageStoreError, match=error):
        receive(pair[0], WIRE, shelf)
    shelf.finish()
