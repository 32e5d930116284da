"""The destination's end of the link, against the source's and against one that lies."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from phaul.errors import PageStoreError
from phaul.pages.remote import RemotePages, Supply
from phaul.pages.remote.link import MOST_ASKED, Kind, Message
from phaul.pages.store.index import PAGE
from tests.unit.pages.remote.ends import (
    RANGES,
    WAIT_S,
    Memory,
    await_that,
    content,
    fetching,
    hear,
    page,
    supplying,
)

AT = 0x10000
TOTAL = sum(pages for ranges in RANGES.values() for _, pages in ranges)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def supply(memory: Memory) -> Iterator[Supply]:
    with supplying(memory) as found:
        yield found


@pytest.fixture
def remote() -> Iterator[RemotePages]:
    with fetching() as found:
        yield found


def join(supply: Supply, remote: RemotePages) -> socket.socket:
    """A link; a copy of one of its ends, to cut it."""
    ours, theirs = socket.socketpair()
    copy = ours.dup()
    supply.attach(theirs)
    remote.attach(ours)
    return copy


def cut(link: socket.socket) -> None:
    with link:
        link.shutdown(socket.SHUT_RDWR)


class Waiter(threading.Thread):
    """Who waits for a page."""

    def __init__(self, remote: RemotePages, address: int) -> None:
        super().__init__(daemon=True)
        self.remote = remote
        self.address = address
        self.found: bytes | PageStoreError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.found = page(self.remote, 7, self.address)
        except PageStoreError as error:
            self.found = error

    def ends(self) -> bytes | PageStoreError | None:
        self.join(WAIT_S)
        assert not self.is_alive()
        return self.found


def test_a_page_that_is_waited_for_brings_its_neighbours(
    memory: Memory, supply: Supply, remote: RemotePages
) -> None:
    with join(supply, remote):
        assert page(remote, 7, AT + 5 * PAGE) == content(7, AT + 5 * PAGE)
        found = remote.piece(7, AT + 5 * PAGE, 40)
        assert (found.offset, found.pages) == (5 * PAGE, 1)
        found = remote.piece(7, AT + 6 * PAGE, 40)
        assert (found.offset, found.pages) == (6 * PAGE, 16)
    assert [(m.address, m.pages, m.urgent) for m in memory.given] == [
        (AT + 5 * PAGE, 1, True),
        (AT + 6 * PAGE, 16, True),
    ]
    assert not remote.complete


def test_the_sweep_brings_all(supply: Supply, remote: RemotePages) -> None:
    with join(supply, remote):
        remote.sweep()
        await_that(lambda: remote.complete and remote.acknowledged)
        assert supply.done
    assert (remote.received, remote.lacking) == (TOTAL, 0)
    for pagemap, ranges in RANGES.items():
        for start, pages in ranges:
            for address in range(start, start + pages * PAGE, PAGE):
                assert page(remote, pagemap, address) == content(pagemap, address)


def test_links_that_are_lost_lose_nothing(
    memory: Memory, supply: Supply, remote: RemotePages
) -> None:
    memory.most = 7
    link = join(supply, remote)
    remote.sweep()
    waiter = Waiter(remote, AT + 699 * PAGE)
    for part in range(1, 6):
        await_that(lambda part=part: remote.received > part * 100)  # type: ignore[misc]
        cut(link)
        await_that(lambda: not remote.linked or remote.complete)
        link = join(supply, remote)
    assert waiter.ends() == content(7, AT + 699 * PAGE)
    with link:
        await_that(lambda: remote.complete and remote.acknowledged)
    for address in range(AT, AT + 700 * PAGE, PAGE):
        assert page(remote, 7, address) == content(7, address)


def test_who_waits_is_served_by_the_next_link(supply: Supply, remote: RemotePages) -> None:
    waiters = [Waiter(remote, AT), Waiter(remote, 0x800000)]
    with join(supply, remote):
        assert [w.ends() for w in waiters] == [content(7, AT), content(7, 0x800000)]


def test_a_loss_is_said_at_once_to_all(memory: Memory, supply: Supply, remote: RemotePages) -> None:
    memory.gate.clear()
    with join(supply, remote):
        waiters = [Waiter(remote, AT), Waiter(remote, 0x800000)]
        await_that(lambda: supply.waiting)
        memory.error = PageStoreError("criu is no more")
        memory.gate.set()
        for waiter in waiters:
            error = waiter.ends()
            assert isinstance(error, PageStoreError)
            assert error.what.startswith(f"{TOTAL} pages ({TOTAL * 4} KiB)")
            assert "are lost: the source has it no more" in error.what
            assert error.host == "there"
        with pytest.raises(PageStoreError, match="are lost"):
            page(remote, 8, AT)


def test_the_caller_may_know_that_the_source_is_lost(remote: RemotePages) -> None:
    waiter = Waiter(remote, AT)
    remote.give_up("its machine is off")
    assert "its machine is off" in str(waiter.ends())


def test_without_a_link_it_is_lost_in_the_end() -> None:
    with (
        fetching(patience=0.05) as remote,
        pytest.raises(PageStoreError, match="there was no link"),
    ):
        page(remote, 7, AT)


def test_who_waits_when_it_is_closed_is_told(remote: RemotePages) -> None:
    waiter = Waiter(remote, AT)
    remote.close()
    assert "not asked for any more" in str(waiter.ends())


def test_what_was_never_left_on_the_source(remote: RemotePages) -> None:
    with pytest.raises(PageStoreError, match="was not left on the source"):
        remote.piece(9, AT, 1)
    remote.want(9, AT, 1)


@pytest.mark.parametrize(
    "said",
    [
        Message(Kind.PAGES, 9, AT, 1).encode() + bytes(PAGE),
        Message(Kind.PAGES, 7, AT + 699 * PAGE, 2).encode() + bytes(2 * PAGE),
        Message(Kind.ASK, 7, AT, 1).encode(),
        b"\xff" * 20,
    ],
)
def test_a_source_that_lies_is_not_believed(said: bytes, remote: RemotePages) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        remote.attach(ours)
        waiter = Waiter(remote, AT)
        assert hear(theirs).kind is Kind.ASK
        theirs.sendall(said)
        assert isinstance(waiter.ends(), PageStoreError)


def test_half_an_answer_is_none(supply: Supply, remote: RemotePages) -> None:
    ours, theirs = socket.socketpair()
    remote.attach(ours)
    with theirs:
        waiter = Waiter(remote, AT)
        assert hear(theirs).urgent
        theirs.sendall(Message(Kind.PAGES, 7, AT, 2).encode() + bytes(PAGE))
    await_that(lambda: not remote.linked)
    assert remote.received == 0
    with join(supply, remote):
        assert waiter.ends() == content(7, AT)


def test_no_more_is_needed(supply: Supply, remote: RemotePages) -> None:
    remote.finish()
    remote.finish()
    with join(supply, remote):
        await_that(lambda: remote.acknowledged)
        remote.clear()
        remote.clear()
        remote.sweep()
        assert remote.received == 0


def test_a_full_disk_is_told(supply: Supply) -> None:
    with fetching() as remote:
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            own, remote.descriptor = remote.descriptor, full
            with join(supply, remote), pytest.raises(PageStoreError, match="cannot be written"):
                page(remote, 7, AT)
            remote.descriptor = own
        finally:
            remote.close()
            os.close(full)


def test_at_most_so_much_is_asked_for(remote: RemotePages) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        remote.attach(ours)
        remote.sweep()
        asked = [hear(theirs) for _ in range(4)]
    assert [(m.pagemap, m.address, m.pages, m.urgent) for m in asked] == [
        (7, AT, MOST_ASKED, False),
        (7, AT + MOST_ASKED * PAGE, 700 - MOST_ASKED, False),
        (7, 0x800000, 90, False),
        (8, AT, 5, False),
    ]
