"""Lazily restored memory as the agent has it: the keeper's other end.

Used on the destination, from Prepare to the end.  The keeper is started before any round, so that
nothing of its start falls into the downtime; each round is indexed as it comes in.

    begin --> written* --> arrived* --> ready --+--> a restore in full: the keeper has ended
                                                +--> a lazy one --> guard --> require
                                                            --> leave --> close

Where it is of no use (nothing to gain, no room, an error before the restore) the restore is one in
full, and nothing is lost but the gain.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from phaul.destination.chain import needed
from phaul.destination.gain import ALL, available_memory, bounds
from phaul.errors import PageStoreError, PhaulError, ProtocolError
from phaul.incarnation import Incarnation
from phaul.protocol import keeping as k
from phaul.protocol.failure import to_error
from phaul.protocol.messages import Draining, Failed

__all__ = ["LazyMemory", "Mode", "as_draining", "drained"]

Mode = Literal["auto", "lazy", "full"]
"""How memory is restored: AUTO lazily where that is shorter."""

_ASK_S: Final = 30.0
_END_S: Final = 10.0

_logger = logging.getLogger("phaul")


def as_draining(found: k.Standing) -> Draining:
    """What the keeper says, as the source is told it."""
    return Draining(
        pages=found.pages,
        given=found.given,
        seconds=found.seconds,
        over=found.stage is not k.Stage.DRAINING,
        failure=found.failed,
    )


def drained(failure: str = "") -> Draining:
    """What the source is told where there is nothing, or nobody, to wait for any more."""
    return Draining(pages=0, given=0, seconds=0.0, over=True, failure=failure)


@dataclass(eq=False)
class _Begun:
    """What `ready` is going to say, under way."""

    over: anyio.Event = field(default_factory=anyio.Event)
    lazily: bool = False
    error: PhaulError | None = None

    async def outcome(self) -> bool:
        await self.over.wait()
        if self.error is not None:
            raise self.error
        return self.lazily


class LazyMemory:
    """One keeper, in charge of the images below `incoming`; `close` it.

    Its errors are PageStoreError, or what failed over there.  `host` is this host's name in them,
    `rate` how fast this host fills memory, in bytes a second.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        sock: socket.socket,
        tasks: TaskGroup,
        *,
        mode: Mode,
        rate: float,
        wide: bool,
        host: str,
    ) -> None:
        self._started = process
        self._sock = sock
        self._tasks = tasks
        self._mode = mode
        self._rate = rate
        self._wide = wide
        self._host = host
        self._turn = anyio.Lock(fast_acquire=True)
        self.here = anyio.Event()
        """It is known whether there is a keeper."""
        self.keeper: Incarnation | None = None
        """The keeper's process, once it has said that it is there."""
        self._unfit: PhaulError | None = None
        self._lacking: set[str] | None = None
        self._begun: _Begun | None = None
        self._follows = False
        self.patience_s = 600
        """So long memory that follows is waited for without a link."""
        self.lazy = False
        """Whether the restore is a lazy one: `guard` has succeeded."""
        tasks.start_soon(self._greet)

    @classmethod
    def begin(
        cls,
        incoming: Path,
        program: Sequence[str],
        tasks: TaskGroup,
        *,
        mode: Mode,
        rate: float,
        wide: bool,
        host: str,
    ) -> Self | None:
        """Start a keeper; None if none can be started.  `tasks` outlives it.

        `program` is CRIU's, `wide` is its `Version.wide_page_server`.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        number = str(theirs.fileno())
        words = [sys.executable, "-P", "-m", "phaul.keeper", number, str(incoming), *program]
        try:
            with theirs:
                process = subprocess.Popen(
                    words,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            _logger.warning("memory is restored in full: no keeper: %s", error)
            return None
        return cls(process, ours, tasks, mode=mode, rate=rate, wide=wide, host=host)

    async def _greet(self) -> None:
        """Reap what was started, and hear the keeper's first word."""
        try:
            await self._reap()
            answer = await self._receive(_ASK_S)
            if not isinstance(answer, k.Here):
                raise ProtocolError("the keeper does not say that it is there", host=self._host)
            self.keeper = Incarnation.of(answer.pid)
        except PhaulError as error:
            self._unfit = error
        finally:
            self.here.set()

    async def _reap(self) -> None:
        if self._started.poll() is None:
            handle = os.pidfd_open(self._started.pid)
            try:
                await anyio.wait_readable(handle)
            finally:
                os.close(handle)
            self._started.wait()

    def written(self, folder: Path) -> None:
        """A round is in: index what was written, beside what comes next."""
        self._tasks.start_soon(self._add, folder)

    async def _add(self, folder: Path) -> None:
        if not self.here.is_set():
            await self.here.wait()
        try:
            if self._unfit is None:
                await self._ask(k.Add(folder=folder.name))
        except PhaulError as error:
            self._unfit = self._unfit or error

    async def arrived(self, image: Path) -> None:
        """An image of the final dump is there: with the last that it needs, `ready` is begun.

        So it goes on beside the arrival of the others.
        """
        if self._lacking is None:
            self._lacking = needed(image.parent)
        self._lacking.discard(image.name)
        # Of memory that follows the page maps are images, too: nobody knows which of them come.
        if self._begun is None and not self._lacking and self.here.is_set() and not self._follows:
            self._begun = _Begun()
            self._tasks.start_soon(self._prepare_early, image.parent, self._begun)
            await checkpoint()  # the other images may be here already: it is to come before them

    async def _prepare_early(self, images: Path, begun: "_Begun") -> None:
        try:
            begun.lazily = await self._prepare(images)
        except PhaulError as error:
            begun.error = error
        finally:
            begun.over.set()

    async def follow(self, link: int) -> None:
        """What the final dump leaves out follows over `link`, which stays the caller's.

        Raises what kept the keeper from being there.
        """
        await self.here.wait()
        if self._unfit is not None:
            raise self._unfit
        await self._ask(k.Attach(), link)
        self._follows = True

    async def ready(self, images: Path) -> bool:
        """Whether to restore `images` lazily: then all stands that the restore needs.

        It is the first thing in the downtime that waits for the keeper.  Where memory follows it
        is either so, or an error.
        """
        try:
            if self._begun is None:
                lazily = await self._prepare(images)
            else:
                lazily = await self._begun.outcome()
                self._require_there()
        except PhaulError as error:
            if self._follows:
                raise
            _logger.warning("memory is restored in full: %s", error)
            lazily = False
        if not lazily:
            self._tasks.start_soon(self.close)  # nobody waits for it
        return lazily

    def _require_there(self) -> None:
        """Raise if the keeper has ended since it was asked."""
        try:
            if not self._sock.recv(1, socket.MSG_PEEK):
                raise self._gone()
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._gone() from error

    async def _prepare(self, images: Path) -> bool:
        mode = "lazy" if self._follows else self._mode
        if mode == "auto" and not self.here.is_set():
            return False  # a process that is moved before Python has started is a small one
        if not self.here.is_set():
            await self.here.wait()
        if self._unfit is not None:
            raise self._unfit
        least, most = bounds(self._rate, available_memory()) if mode == "auto" else (1, ALL)
        counted = await self._ask(
            k.Finish(
                folder=images.name,
                least=least,
                most=most,
                wide=self._wide,
                patience_s=self.patience_s,
            )
        )
        if not isinstance(counted, k.Counted):
            raise self._confused()
        return counted.started

    async def guard(self, pid: int) -> None:
        """The copy with the root `pid` is held: see that it reads no zeros, whoever dies."""
        await self._ask(k.Guard(pid=pid))
        self.lazy = True

    async def require(self) -> None:
        """Raise if the memory of a copy cannot come any more that is to be let go now."""
        if self.lazy:
            standing = await self._look(k.Look(release=True))
            if standing.failure is not None:
                raise to_error(standing.failure, self._host)

    async def look(self, wait: float = 0.0) -> k.Standing:
        """How far it has come; waits for the end of it for so many seconds, 10 at most."""
        return await self._look(k.Look(wait_ms=int(wait * 1000)))

    async def _look(self, look: k.Look) -> k.Standing:
        standing = await self._ask(look)
        if not isinstance(standing, k.Standing):
            raise self._confused()
        return standing

    async def abandon(self) -> None:
        """The source has lost what follows, and knows it: have the copy ended that waits for it."""
        await self._ask(k.Abandon())
        await self.look(_END_S)

    async def leave(self, *, told: bool) -> k.Standing:
        """The copy runs, and this agent ends: how far it has come.

        What is not in yet the keeper sees through; then it removes the images, and all else of this
        migration if the source was `told` that it runs.
        """
        standing = await self.look()
        if standing.stage is k.Stage.DRAINING:
            await self._ask(k.Leave(told=told))
        return standing

    async def close(self) -> None:
        """Let the keeper go: one that has a tree to look after goes on.  May be called again."""
        if self._sock.fileno() < 0:
            return
        with anyio.CancelScope(shield=True):
            # It is told to end; who it is has to be heard before, so that it can be waited for.
            for how in (socket.SHUT_WR, socket.SHUT_RDWR):
                with suppress(OSError):
                    self._sock.shutdown(how)
                with anyio.move_on_after(_END_S):
                    await self.here.wait()  # nobody reads it any more
            self._sock.close()
            if self._started.poll() is None:
                self._started.kill()
                await self._reap()
            if not self.lazy:
                await self._ended()

    async def ended(self) -> None:
        """Wait until a keeper has ended whose copy was given up, for 10 s at most."""
        if self.lazy:
            with suppress(PhaulError):
                await self._ask(k.GiveUp())
        await self.close()
        await self._ended()

    async def _ended(self) -> None:
        if self.keeper is not None:
            with anyio.move_on_after(_END_S, shield=True):
                while self.keeper.alive():
                    await anyio.sleep(0.002)

    async def _ask(self, request: k.KeeperRequest, *descriptors: int) -> k.KeeperAnswer:
        async with self._turn:
            with anyio.CancelScope(shield=True):  # else the next would get this one's answer
                try:
                    socket.send_fds(self._sock, [k.encode(request)], descriptors)
                except OSError as error:
                    raise self._gone() from error
                answer = await self._receive(_ASK_S)
        if isinstance(answer, Failed):
            raise to_error(answer, self._host)
        return answer

    async def _receive(self, timeout: float) -> k.KeeperAnswer:
        with anyio.move_on_after(timeout):
            while True:
                try:
                    packet = self._sock.recv(k.MAX_PACKET)
                    break
                except BlockingIOError:
                    await anyio.wait_readable(self._sock)
                except OSError as error:
                    raise self._gone() from error
            if not packet:
                raise self._gone()
            return k.decode_answer(packet)
        raise PageStoreError(
            f"the keeper of the memory did not answer within {timeout:g} s", host=self._host
        )

    def _gone(self) -> PageStoreError:
        return PageStoreError("the keeper of the memory has ended", host=self._host)

    def _confused(self) -> ProtocolError:
        return ProtocolError("the keeper's answer is to another question", host=self._host)
