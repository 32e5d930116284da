"""Memory that follows, over one link after another, and each way in which it ends."""

import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import msgspec
import pytest
from anyio.abc import TaskGroup

from phaul.criu.images import PAGE_SIZE
from phaul.errors import ConnectFailed, ConnectionLost, OutcomeUnknown, PhaulError
from phaul.pages.remote.link import SIZE, Kind, Message, decode
from phaul.plan import Wishes
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation
from phaul.protocol.settlement import Copy
from phaul.report import Draining, Event, Followed
from phaul.source.counterpart import Counterpart
from phaul.source.following import Following
from phaul.source.telling import Telling
from phaul.transport.answering import serve
from phaul.transport.base import SourceEnd
from phaul.transport.local import LocalAgent, local_ends
from tests.unit.protocol.samples import FACTS, KEY
from tests.unit.source.handing import AT, PAGES, SERVE, begun, killed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "small_pipes")]
LIMIT = 20.0
CRIU = SERVE + "serve(99); end(True)"

Link = Callable[[socket.socket, int], None]
"""What the destination does over a link, in a thread, with the pages of this process."""


def takes(sock: socket.socket, pid: int, first: int, pages: int, *, urgent: bool = False) -> None:
    """Ask for pages, and have them."""
    sock.sendall(Message(Kind.ASK, pid, AT + first * PAGE_SIZE, pages, urgent=urgent).encode())
    while pages:
        said = decode(sock.recv(SIZE, socket.MSG_WAITALL))
        assert said.kind is Kind.PAGES
        data = sock.recv(said.pages * PAGE_SIZE, socket.MSG_WAITALL)
        assert data == b"\x5a" * said.pages * PAGE_SIZE
        pages -= said.pages


def all_of_it(sock: socket.socket, pid: int) -> None:
    """As it goes when nothing happens."""
    takes(sock, pid, 0, 1, urgent=True)
    takes(sock, pid, 1, PAGES - 1)
    sock.sendall(Message(Kind.DONE).encode())
    assert decode(sock.recv(SIZE, socket.MSG_WAITALL)).kind is Kind.DONE


def a_page_of_it(sock: socket.socket, pid: int) -> None:
    """And then the link is lost."""
    takes(sock, pid, 0, 1, urgent=True)


def nothing_of_it(sock: socket.socket, pid: int) -> None:
    """It waits, until it is told that there is no more."""
    with suppress(OSError):
        sock.recv(SIZE, socket.MSG_WAITALL)


class There:
    """The agent behind one connection: `standing` is its answer to Ask, `link` what it then does.

    `failure` is told at the first Drain.
    """

    def __init__(self, end: LocalAgent, pid: int, standing: m.Standing, link: Link) -> None:
        self.end = end
        self.pid = pid
        self.standing = standing
        self.link = link
        self.failure = ""
        self.sock: socket.socket | None = None
        self.attached = anyio.Event()

    async def handle(self, request: m.Request) -> m.Answer:
        match request:
            case m.Hello(settle=True, versions=versions):
                return m.Welcome(version=versions.newest, facts=FACTS, token=self.end.token)
            case m.Ask(key=key, act=True) if key == KEY:
                return self.standing
            case m.Attach():
                self.sock = await self.end.accept_memory(LIMIT)
                self.sock.settimeout(LIMIT)
                self.attached.set()
                return m.Done()
            case m.Drain():
                return m.Draining(pages=PAGES, given=0, seconds=0, over=False, failure=self.failure)
            case m.Bye():
                return m.Done()
            case _:
                raise AssertionError(request)

    async def image(self, *_: object) -> None:
        raise AssertionError("no image comes")

    async def run(self) -> None:
        try:
            async with self.end, anyio.create_task_group() as tasks:
                tasks.start_soon(self._give)
                with suppress(PhaulError):
                    await serve(self.end.control, self, Conversation())
                tasks.cancel_scope.cancel()
        finally:
            if self.sock is not None:
                self.sock.close()

    async def _give(self) -> None:
        await self.attached.wait()
        assert self.sock is not None
        await anyio.to_thread.run_sync(self.link, self.sock, self.pid)
        if self.link is a_page_of_it:
            self.sock.close()
            await self.end.aclose()


class Former:
    """The connection that the migration was made over; it is lost, or says `last`."""

    settled = False

    def __init__(self, last: m.Draining | None = None) -> None:
        self.last = last
        self.abandoned = 0

    async def drain(self, timeout: float) -> m.Draining:
        if self.last is None:
            raise ConnectionLost("nothing was heard", host="host2")
        return self.last

    async def abandon(self, timeout: float) -> None:
        self.abandoned += 1


@dataclass
class Order:
    """A migration, and the connections that it makes; none when they are used up."""

    tasks: TaskGroup
    pid: int
    connections: list[tuple[m.Standing, Link]]
    failure: str = ""
    id: str = "m-7f3a"
    lease_s: int = 600
    wishes: Wishes = field(default_factory=Wishes)

    def connect(self) -> SourceEnd:
        if not self.connections:
            raise ConnectFailed("no way there", host="host2")
        source, end = local_ends(silence=LIMIT)
        there = There(end, self.pid, *self.connections.pop(0))
        there.failure = self.failure
        self.tasks.start_soon(there.run)
        return source


LACKING = m.Standing(copy=Copy.RUNNING, pid=7, lacking=PAGES)


class Case:
    """Follows the memory of `tree`, which was handed over, by these connections."""

    def __init__(self, folder: Path, tree: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.tree = tree
        self.events: list[Event] = []
        self.former = Former()
        self.failure = ""
        self.lease_s = 600

    async def run(self, *connections: tuple[m.Standing, Link], body: str = CRIU) -> Followed:
        with anyio.fail_after(3 * LIMIT):
            async with begun(self.folder, self.tree, body) as post:
                await post.hand_over(lambda: killed(self.tree))
                async with anyio.create_task_group() as tasks:
                    order = Order(tasks, self.tree.pid, [*connections], self.failure)
                    order.lease_s = self.lease_s
                    telling = Telling(self.events.append)
                    counterpart = cast(Counterpart, self.former)
                    following = Following(post, counterpart, telling, order, KEY, "host2")
                    try:
                        found = await following.run()
                        assert post.needed_until > 0
                    finally:
                        tasks.cancel_scope.cancel()
        return found

    async def loses(self, *connections: tuple[m.Standing, Link], body: str = CRIU) -> str:
        """Run it; what is said of the process, which is lost."""
        with pytest.raises(BaseExceptionGroup) as caught:
            await self.run(*connections, body=body)
        error = caught.value.exceptions[0]
        assert isinstance(error, OutcomeUnknown), error
        assert error.host == "host2"
        assert "start the process anew" in error.remedy
        assert "lost: ended on host2" in error.fate
        return f"{error.what}; {error.fate}"


@pytest.fixture
def case(tmp_path: Path, victim: "subprocess.Popen[bytes]") -> Case:
    return Case(tmp_path, victim)


async def test_all_of_it_goes_over_another_link(case: Case) -> None:
    found = await case.run((LACKING, all_of_it))
    assert (found.pages, found.on_demand, found.swept) == (PAGES, 1, PAGES - 1)
    assert found.sent_bytes == PAGES * PAGE_SIZE
    assert found.needed_s > 0
    told = [event for event in case.events if isinstance(event, Draining)]
    assert told
    assert all(event.pages == PAGES and event.follows for event in told)


async def test_a_link_that_is_lost_too_is_followed_by_the_next(case: Case) -> None:
    found = await case.run((LACKING, a_page_of_it), (LACKING, all_of_it))
    # What was under way when it was lost may not have come: it is asked for, and given, again.
    assert (found.pages, found.on_demand) == (PAGES, 2)


async def test_one_that_has_all_is_left_alone(case: Case) -> None:
    found = await case.run((msgspec.structs.replace(LACKING, lacking=0), nothing_of_it))
    assert (found.pages, found.on_demand, found.swept) == (PAGES, 0, 0)


@pytest.mark.parametrize("copy", [Copy.HELD, Copy.IMAGES, Copy.UNSURE])
async def test_a_copy_that_does_not_run_is_told(case: Case, copy: Copy) -> None:
    said = await case.loses((m.Standing(copy=copy), nothing_of_it))
    assert f"the copy is {copy.value} there, and does not run" in said


async def test_one_that_was_ended_meanwhile_is_told(case: Case) -> None:
    ended = m.Standing(copy=Copy.NOTHING, lost="its keeper was killed")
    said = await case.loses((ended, nothing_of_it))
    assert "its keeper was killed" in said
    assert f"{PAGES} pages of {PAGES} had not been given" in said


async def test_also_while_its_memory_is_given(case: Case) -> None:
    case.failure = "no memory left there"
    assert "no memory left there" in await case.loses((LACKING, nothing_of_it))


async def test_also_over_the_connection_that_there_was(case: Case) -> None:
    case.former = Former(
        m.Draining(pages=PAGES, given=1, seconds=0, over=True, failure="killed by somebody")
    )
    assert "killed by somebody" in await case.loses()
    assert case.former.abandoned == 1


async def test_nobody_comes_for_it_while_the_lease_lasts(case: Case) -> None:
    case.lease_s = 1
    assert "the destination was not there for 1 s" in await case.loses()


async def test_a_criu_that_dies_has_the_memory_with_it(case: Case) -> None:
    said = await case.loses((LACKING, nothing_of_it), body=SERVE + "sys.exit(3)")
    assert "the memory is lost" in said
