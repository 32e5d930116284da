"""Memory that follows: given until the destination has all of it, over one link after another.

Runs on the source, after the commit of a post-copy or a hybrid, until it is over.  Nothing of the
process is here any more but its memory: what fails here for good loses the process.

    linked ---lost---> connects again, and Attach: linked
      |                      |
      |                 for as long as the lease, or it is said that the copy was ended: lost
    all is there: CRIU is told to close; this host is not needed any more
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import anyio

from phaul._version import __version__
from phaul.criu.facts import host_name
from phaul.errors import OutcomeUnknown, PageStoreError, PhaulError, ProtocolError
from phaul.pages.channel import MemoryChannel
from phaul.plan import Wishes
from phaul.protocol import messages as m
from phaul.protocol.handshake import OURS
from phaul.protocol.settlement import Copy
from phaul.report import Draining, Followed
from phaul.report.report import PAGE_SIZE
from phaul.report.units import plural
from phaul.source.counterpart import Counterpart
from phaul.source.postcopy import PostCopy
from phaul.source.telling import Telling
from phaul.transport.base import SourceEnd
from phaul.transport.beside import beside
from phaul.transport.caller import Caller

__all__ = ["Following"]

_LOOK_S: Final = 0.2
_AGAIN_S: Final = 1.0
_ASK_S: Final = 60.0
_SAYS_S: Final = 15.0
"""So long the other side is asked how much it lacked, when all is lost."""


class _Order(Protocol):
    """What is used of the migration's order."""

    @property
    def id(self) -> str: ...
    @property
    def connect(self) -> Callable[[], SourceEnd]: ...
    @property
    def lease_s(self) -> int: ...
    @property
    def wishes(self) -> Wishes: ...


class Following:
    """The memory of one migration, which `post` has; `key` is the migration's.

    `peer` is the other host's name.  `counterpart` is asked as long as its connection is there.
    """

    def __init__(
        self,
        post: PostCopy,
        counterpart: Counterpart,
        telling: Telling,
        order: _Order,
        key: str,
        peer: str,
    ) -> None:
        self._post = post
        self._counterpart = counterpart
        self._telling = telling
        self._order = order
        self._key = key
        self._peer = peer

    async def run(self) -> Followed:
        """Wait until the destination has all; to be called when the process runs there.

        Raises OutcomeUnknown if the memory is lost, and with it the process.
        """
        supply, begun = self._post.supply, time.monotonic()
        with anyio.CancelScope(shield=True):
            try:
                async with beside() as tasks:
                    tasks.start_soon(self._tell)
                    tasks.start_soon(self._heed)
                    tasks.start_soon(self._see_link)
                    await self._post.drained(float(self._order.lease_s))
            except PageStoreError as error:
                raise await self._lost(error) from error
        return Followed(
            pages=supply.total,
            on_demand=supply.urgent,
            swept=supply.given - supply.urgent,
            sent_bytes=supply.given * PAGE_SIZE,
            needed_s=self._post.needed_until - begun,
        )

    async def _tell(self) -> None:
        """Tell from time to time how much has been given."""
        supply = self._post.supply
        while True:
            given = min(supply.given, supply.total)
            self._telling.at_end(Draining(pages=supply.total, given=given, follows=True))
            await anyio.sleep(_AGAIN_S)

    async def _heed(self) -> None:
        """Hear at once of a copy that was ended over there, as long as the connection holds."""
        with suppress(PhaulError):  # then it is asked over the next one
            while not self._counterpart.settled:
                found = await self._counterpart.drain(_ASK_S)
                if found.failure:
                    self._fail(found.failure)
                if found.over:
                    return
                await anyio.sleep(_LOOK_S)

    def _fail(self, why: str) -> None:
        """The copy was ended: nobody is going to ask for its memory any more."""
        self._post.supply.fail(PageStoreError(why, host=self._peer))

    async def _see_link(self) -> None:
        """Bring another link whenever there is none."""
        supply = self._post.supply
        while True:
            await anyio.sleep(_LOOK_S)
            if supply.linked or supply.done or supply.error is not None:
                continue
            try:
                async with self._order.connect() as end, beside() as tasks:
                    tasks.start_soon(end.control.stay_alive)
                    await self._go_on(end)
            except PhaulError:
                await anyio.sleep(_AGAIN_S)

    async def _go_on(self, end: SourceEnd) -> None:
        """Give what is still lacking over this connection, until it is lost or all is there."""
        supply = self._post.supply
        caller = Caller(end.control, self._peer)
        hello = m.Hello(
            versions=OURS,
            phaul=__version__,
            host=host_name(),
            criu=m.CriuVersion(major=0, minor=0),
            migration=self._order.id,
            settle=True,
        )
        welcome = await caller.hello(hello, _ASK_S)
        standing = await caller.call(m.Ask(key=self._key, act=True), _ASK_S)
        if not isinstance(standing, m.Standing):
            raise ProtocolError("the other side does not say what it has", host=self._peer)
        if standing.lost:
            self._fail(standing.lost)
        elif not standing.lacking:
            # It ran there, and its keeper has ended in order, or is about to.
            if standing.copy not in (Copy.RUNNING, Copy.NOTHING):
                self._fail(f"the copy is {standing.copy.value} there, and does not run")
            supply.finish()
        else:
            with await end.open_memory(welcome.token) as link, self._channel(link) as channel:
                await caller.call(m.Attach(), _ASK_S)
                await anyio.to_thread.run_sync(supply.attach, channel.duplicate())
                await self._while_linked(caller)
        with suppress(PhaulError):
            await caller.call(m.Bye(), _ASK_S)

    @contextmanager
    def _channel(self, link: socket.socket) -> Iterator[MemoryChannel]:
        """The new link, held back as the first one was."""
        channel = MemoryChannel(link.fileno(), host_name(), bandwidth=self._order.wishes.bandwidth)
        try:
            yield channel
        finally:
            channel.close()

    async def _while_linked(self, caller: Caller) -> None:
        while self._post.supply.linked:
            found = await caller.call(m.Drain(), _ASK_S)
            if isinstance(found, m.Draining) and found.failure:
                self._fail(found.failure)
            await anyio.sleep(_LOOK_S)

    async def _lost(self, error: PageStoreError) -> OutcomeUnknown:
        """The error that says so, with the number of pages, if the other side still tells it."""
        supply = self._post.supply
        what = error.what
        with anyio.move_on_after(_SAYS_S), suppress(PhaulError):
            if not self._counterpart.settled:
                # What was said over the link may wait behind pages, or be lost with it.
                await self._counterpart.abandon(_SAYS_S)
            while not self._counterpart.settled:
                found = await self._counterpart.drain(_SAYS_S)
                if found.over:
                    what = found.failure or what
                    break
        lacked = plural(max(supply.total - supply.given, 0), "page")
        return OutcomeUnknown(
            f"the process ran on {self._peer}, but memory that was still here did not get there, "
            f"so it was ended: {what}",
            host=self._peer,
            remedy="start the process anew: no host has all of its memory any more",
            fate=f"lost: ended on {self._peer}, {lacked} of {supply.total} had not been given",
        )
