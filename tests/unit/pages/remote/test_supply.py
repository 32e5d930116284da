"""The source's end of the link: in which order it answers, and what it does not answer."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from phaul.errors import PageStoreError
from phaul.pages.remote import Supply
from phaul.pages.remote import supply as module
from phaul.pages.remote.link import MOST_ASKED, MOST_GIVEN, SIZE, Kind, Message
from phaul.pages.store.index import PAGE
from tests.unit.pages.remote.ends import Memory, await_that, hear, hear_pages, supplying

AT = 0x10000


def ask(sock: socket.socket, address: int, pages: int, *, urgent: bool = False) -> None:
    sock.sendall(Message(Kind.ASK, 7, address, pages, urgent).encode())


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def supply(memory: Memory) -> Iterator[Supply]:
    with supplying(memory) as found:
        yield found


def link(supply: Supply) -> socket.socket:
    ours, theirs = socket.socketpair()
    supply.attach(theirs)
    ours.settimeout(20)
    return ours


def test_a_long_answer_comes_in_pieces(supply: Supply) -> None:
    with link(supply) as sock:
        assert supply.linked
        ask(sock, AT, 150)
        found = [hear_pages(sock) for _ in range(3)]
    assert [(m.address, m.pages) for m in found] == [
        (AT, MOST_GIVEN),
        (AT + 64 * PAGE, MOST_GIVEN),
        (AT + 128 * PAGE, 22),
    ]
    await_that(lambda: not supply.linked)
    assert supply.given == 150
    assert not supply.done


def test_what_the_backing_gives_is_enough(memory: Memory, supply: Supply) -> None:
    memory.most = 3
    with link(supply) as sock:
        ask(sock, AT, 7)
        assert [hear_pages(sock).pages for _ in range(3)] == [3, 3, 1]


def test_what_is_urgent_goes_first(memory: Memory, supply: Supply) -> None:
    memory.gate.clear()
    with link(supply) as sock:
        ask(sock, AT, MOST_ASKED)
        ask(sock, 0x800000, 2, urgent=True)
        ask(sock, 0x800000 + 5 * PAGE, 2, urgent=True)
        sock.sendall(Message(Kind.ASK, 8, AT, 1).encode())
        await_that(lambda: supply.waiting >= 3)
        memory.gate.set()
        found = [hear_pages(sock) for _ in range(11)]
    first = [(m.pagemap, m.address) for m in found[:4]]
    assert (7, 0x800000) in first[:2]
    assert (7, 0x800000 + 5 * PAGE) in first[:3]
    assert (found[-1].pagemap, found[-1].address) == (8, AT)


def test_nothing_is_given_while_there_is_no_backing() -> None:
    memory = Memory()
    with supplying(None) as supply, link(supply) as sock:
        ask(sock, AT, 1)
        await_that(lambda: supply.waiting == 1)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(20)
        supply.use(memory)
        assert hear_pages(sock).pages == 1


@pytest.mark.parametrize(
    "said",
    [
        Message(Kind.ASK, 7, AT - PAGE, 1).encode(),
        Message(Kind.ASK, 7, AT + 699 * PAGE, 2).encode(),
        Message(Kind.ASK, 9, AT, 1).encode(),
        Message(Kind.PAGES, 7, AT, 1).encode(),
        Message(Kind.LOST).encode(),
        b"\xff" * SIZE,
    ],
)
def test_a_link_that_asks_for_what_was_never_left_out_ends(
    said: bytes, memory: Memory, supply: Supply
) -> None:
    with link(supply) as sock:
        sock.sendall(said)
        assert sock.recv(1) == b""
    assert memory.given == []
    with link(supply) as sock:
        ask(sock, AT, 1)
        assert hear_pages(sock).pages == 1


def test_one_that_asks_and_asks_ends(
    memory: Memory, supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 10)
    memory.gate.clear()
    with link(supply) as sock:
        with suppress(BrokenPipeError):  # it may be cut off before it has said all
            for _ in range(14):
                ask(sock, AT, 1)
        await_that(lambda: not supply.linked)
        memory.gate.set()


def test_what_is_asked_for_twice_is_given_once(memory: Memory, supply: Supply) -> None:
    with link(supply) as sock:
        ask(sock, AT + 20 * PAGE, 5, urgent=True)
        found = [hear_pages(sock)]
        ask(sock, AT + 10 * PAGE, 40)
        found += [hear_pages(sock) for _ in range(2)]
    assert [((m.address - AT) // PAGE, m.pages) for m in found] == [(20, 5), (10, 10), (25, 25)]
    assert (supply.given, supply.urgent) == (40, 5)


def test_the_next_link_begins_anew(memory: Memory, supply: Supply) -> None:
    memory.gate.clear()
    with link(supply) as sock:
        ask(sock, AT, 100)
        ask(sock, AT, 100)
        await_that(lambda: supply.waiting)
        sock.shutdown(socket.SHUT_RDWR)
        memory.gate.set()
        with link(supply) as second:
            ask(second, AT + PAGE, 1)
            assert hear_pages(second).address == AT + PAGE


def test_done_is_said_back_and_remembered(supply: Supply) -> None:
    for _ in range(2):
        with link(supply) as sock:
            sock.sendall(Message(Kind.DONE).encode())
            assert hear(sock).kind is Kind.DONE
            await_that(lambda: supply.done)


def test_done_is_heard_from_one_who_goes_away(supply: Supply) -> None:
    with link(supply) as sock:
        sock.sendall(Message(Kind.DONE).encode())
    await_that(lambda: supply.done)
    supply.clear()
    supply.clear()


def test_a_loss_is_told_over_this_link_and_the_next(memory: Memory, supply: Supply) -> None:
    memory.error = PageStoreError("criu is no more")
    with link(supply) as sock:
        ask(sock, AT, 1)
        assert hear(sock).kind is Kind.LOST
    await_that(lambda: supply.error)
    with link(supply) as sock:
        assert hear(sock).kind is Kind.LOST
    supply.fail(PageStoreError("something else"))
    assert supply.error is memory.error


def test_a_link_that_takes_nothing_does_not_hold_up_the_commit(
    supply: Supply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STALLED_S", 0.05)
    with link(supply) as sock:
        for _ in range(8):
            ask(sock, AT, MOST_ASKED)
        await_that(lambda: supply.waiting == 7)
        supply.use(None)
        await_that(lambda: not supply.linked)
