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
from phaul.pages.remote.link import SIZE, Kind
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
from tests.unit.source.handing import PAGES, SERVE, Far, begun, killed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks", "small_pipes")]
LIMIT = 20.0
CRIU = SERVE + "serve(99); end(True)"


def takes(far: Far, pid: int, first: int, pages: int, *, urgent: bool = False) -> None:
    """Ask for pages, and have them."""
    assert far.gets(pid, first, pages, urgent=urgent) == b"\x5a" * pages * PAGE_SIZE


def all_of_it(far: Far, pid: int) -> None:
    """As it goes when nothing happens."""
    takes(far, pid, 0, 1, urgent=True)
    takes(far, pid, 1, PAGES - 1)
    far.say(Kind.DONE)
    assert far.hear().kind is Kind.DONE


def a_page_of_it(far: Far, pid: int) -> None:
    """And then the link is lost."""
    takes(far, pid, 0, 1, urgent=True)


def nothing_of_it(far: Far, pid: int) -> None:
    """It waits, until it is told that there is no more."""
    with suppress(OSError):
        far.sock.recv(SIZE, socket.MSG_WAITALL)


@dataclass
class Connection:
    """What is behind one: the answer to Ask, what is done over its link, what a Drain is told."""

    standing: m.Standing
    link: Callable[[Far, int], None] = nothing_of_it
    """In a thread, with the pages of this process."""
    failure: str = ""


class There:
    """The agent behind a connection."""

    def __init__(self, end: LocalAgent, pid: int, connection: Connection) -> None:
        self.end = end
        self.pid = pid
        self.connection = connection
        self.sock: socket.socket | None = None
        self.attached = anyio.Event()

    async def handle(self, request: m.Request) -> m.Answer:
        match request:
            case m.Hello(settle=True, versions=versions):
                return m.Welcome(version=versions.newest, facts=FACTS, token=self.end.token)
            case m.Ask(key=key, act=True) if key == KEY:
                return self.connection.standing
            case m.Attach():
                self.sock = await self.end.accept_memory(LIMIT)
                self.attached.set()
                return m.Done()
            case m.Drain():
                failure = self.connection.failure
                return m.Draining(pages=PAGES, given=0, seconds=0, over=False, failure=failure)
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
        await anyio.to_thread.run_sync(self.connection.link, Far(self.sock), self.pid)
        if self.connection.link is a_page_of_it:
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
    connections: list[Connection]
    lease_s: int
    id: str = "m-7f3a"
    wishes: Wishes = field(default_factory=Wishes)

    def connect(self) -> SourceEnd:
        if not self.connections:
            raise ConnectFailed("no way there", host="host2")
        source, end = local_ends(silence=LIMIT)
        self.tasks.start_soon(There(end, self.pid, self.connections.pop(0)).run)
        return source


LACKING = m.Standing(copy=Copy.RUNNING, pid=7, lacking=PAGES)


class Case:
    """Follows the memory of `tree`, which was handed over, by these connections."""

    def __init__(self, folder: Path, tree: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.tree = tree
        self.events: list[Event] = []
        self.former = Former()
        self.lease_s = 600

    async def run(self, *connections: Connection, body: str = CRIU) -> Followed:
        with anyio.fail_after(3 * LIMIT):
            async with begun(self.folder, self.tree, body) as post:
                await post.hand_over(lambda: killed(self.tree))
                async with anyio.create_task_group() as tasks:
                    order = Order(tasks, self.tree.pid, [*connections], self.lease_s)
                    telling = Telling(self.events.append)
                    counterpart = cast(Counterpart, self.former)
                    following = Following(post, counterpart, telling, order, KEY, "host2")
                    try:
                        found = await following.run()
                        assert post.needed_until > 0
                    finally:
                        tasks.cancel_scope.cancel()
        return found

    async def loses(self, *connections: Connection, body: str = CRIU) -> str:
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
    found = await case.run(Connection(LACKING, all_of_it))
    assert (found.pages, found.on_demand, found.swept) == (PAGES, 1, PAGES - 1)
    assert found.sent_bytes == PAGES * PAGE_SIZE
    assert found.needed_s > 0
    told = [event for event in case.events if isinstance(event, Draining)]
    assert told
    assert all(event.pages == PAGES and event.follows for event in told)


async def test_a_link_that_is_lost_too_is_followed_by_the_next(case: Case) -> None:
    found = await case.run(Connection(LACKING, a_page_of_it), Connection(LACKING, all_of_it))
    # What was under way when it was lost may not have come: it is asked for, and given, again.
    assert (found.pages, found.on_demand) == (PAGES, 2)


async def test_one_that_has_all_is_left_alone(case: Case) -> None:
    found = await case.run(Connection(msgspec.structs.replace(LACKING, lacking=0)))
    assert (found.pages, found.on_demand, found.swept) == (PAGES, 0, 0)


@pytest.mark.parametrize("copy", [Copy.HELD, Copy.IMAGES, Copy.UNSURE])
async def test_a_copy_that_does_not_run_is_told(case: Case, copy: Copy) -> None:
    said = await case.loses(Connection(m.Standing(copy=copy)))
    assert f"the copy is {copy.value} there, and does not run" in said


async def test_one_that_was_ended_meanwhile_is_told(case: Case) -> None:
    ended = m.Standing(copy=Copy.NOTHING, lost="its keeper was killed")
    said = await case.loses(Connection(ended))
    assert "its keeper was killed" in said
    assert f"{PAGES} pages of {PAGES} had not been given" in said


async def test_also_while_its_memory_is_given(case: Case) -> None:
    why = "no memory left there"
    assert why in await case.loses(Connection(LACKING, failure=why))


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
    said = await case.loses(Connection(LACKING), body=SERVE + "sys.exit(3)")
    assert "the memory is lost" in said
