"""What settles a migration here: it is asked over its own connection, or by a later one.

Runs on the destination.  From Prepare on the agent of a migration listens at a socket in its own
directory, which only its user may enter.  The agent of a later connection finds that directory by
the migration's key:

    its agent lives and answers      what is asked is handed on to it, and its answers back
    it lives, but does not answer    it is ended, as what it holds cannot be told otherwise
    it is dead                       what it left is taken over, by what its journal says
"""

import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from phaul.criu.engine import Engine
from phaul.destination.cage import criu_ended
from phaul.destination.custody import Custody
from phaul.destination.incoming import SOCKET, Incoming, is_locked, require_ours
from phaul.destination.leftovers import end_copy, leave, runs
from phaul.errors import PeerError, PhaulError, StateError, UsageError
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m
from phaul.protocol.agent import Conversation, State
from phaul.protocol.ownership import DestinationState
from phaul.protocol.settlement import Copy
from phaul.storage.journal import DestinationRecord, Journal
from phaul.transport.answering import serve
from phaul.transport.caller import Caller
from phaul.transport.control import agent_control, source_control
from phaul.transport.descriptors import DescriptorStream
from phaul.transport.peer import nearby, peer_uid

__all__ = ["Settler", "find", "listen"]

_PATIENCE_S: Final = 5.0
"""An agent that lives answers Ask within this time, whatever it is at."""
_WORK_S: Final = 900.0
"""A Recover restores a whole process."""
_CRIU_S: Final = 10.0
_FENCE_S: Final = 15.0

_logger = logging.getLogger("phaul")


class Settler(Protocol):
    """Who can answer for a migration."""

    async def ask(self, request: m.Request) -> m.Answer:
        """Fulfil Ask, Commit, Discard, Recover or Bye; raises what fails."""

    async def close(self) -> None:
        """The connection has ended."""


class _Keeper:
    """Answers by a custody of this process's own; `owned` if it ends with this connection."""

    def __init__(self, custody: Custody, *, owned: bool, lease_s: float = 0.0) -> None:
        self._custody = custody
        self._owned = owned
        self._lease_s = lease_s
        self._decided = False

    async def ask(self, request: m.Request) -> m.Answer:
        match request:
            case m.Ask(key=key):
                if not secrets.compare_digest(key, self._custody.record.key):
                    raise UsageError("that is the key of another migration")
                return self._custody.standing()
            case m.Commit():
                running = await self._custody.commit()
                self._decided = True
                return running
            case m.Discard():
                done = await self._custody.discard()
                self._decided = True
                return done
            case m.Recover():
                return await self._custody.recover()
            case m.Bye():
                # Who only looked has written nothing down, and may have to ask again.
                if self._decided:
                    self._custody.told.set()
                return m.Done()
            case _:
                raise UsageError(f"{type(request).__name__} settles nothing")

    async def close(self) -> None:
        if self._owned:
            try:
                if self._custody.state is DestinationState.READY:
                    await self._custody.hold(self._lease_s)
            finally:
                try:
                    await self._custody.end(told=self._custody.told.is_set(), keep_images=False)
                finally:
                    self._custody.incoming.close()


class _Relay:
    """Hands on to the agent that has the migration."""

    def __init__(self, caller: Caller, close: Callable[[], Awaitable[None]]) -> None:
        self._caller = caller
        self._close = close

    async def ask(self, request: m.Request) -> m.Answer:
        return await self._caller.call(request, _WORK_S)

    async def close(self) -> None:
        await self._close()


class _Nothing:
    """There is no such migration here."""

    async def ask(self, request: m.Request) -> m.Answer:
        match request:
            case m.Ask():
                return m.Standing(copy=Copy.NOTHING)
            case m.Discard() | m.Bye():
                return m.Done()
            case _:
                raise UsageError("there is nothing of this migration here")

    async def close(self) -> None:
        pass


class _Handler:
    """A Settler as the handler of a conversation."""

    def __init__(self, settler: Settler) -> None:
        self._settler = settler

    async def handle(self, request: m.Request) -> m.Answer:
        return await self._settler.ask(request)

    async def image(self, image: m.Image, chunks: AsyncIterator[bytes]) -> None:
        raise UsageError(f"{image.name} settles nothing")


class _Glance:
    """Says what the journal does, of an agent that is dead or does not answer."""

    def __init__(self, record: DestinationRecord, path: Path, *, living: bool) -> None:
        self._record = record
        self._path = path
        self._living = living

    async def ask(self, request: m.Request) -> m.Answer:
        record = self._record
        match request:
            case m.Ask():
                copy = _AS_COPY[record.state]
                if record.state is DestinationState.READY and not self._living:
                    copy = Copy.IMAGES
                elif record.state is DestinationState.RELEASING and not self._living:
                    there = record.root is not None and record.root.alive()
                    copy = Copy.RUNNING if there else Copy.UNSURE
                return m.Standing(copy=copy, pid=record.pid, path=str(self._path))
            case m.Bye():
                return m.Done()
            case _:
                raise UsageError("it was only looked: Ask with `act` comes first")

    async def close(self) -> None:
        pass


_AS_COPY: Final = {
    DestinationState.RECEIVING: Copy.BEGUN,
    DestinationState.RESTORING: Copy.BEGUN,
    DestinationState.READY: Copy.HELD,
    DestinationState.RELEASING: Copy.HELD,
    DestinationState.RUNNING: Copy.RUNNING,
    DestinationState.IMAGES: Copy.IMAGES,
    DestinationState.AGAIN: Copy.IMAGES,
    DestinationState.DISCARDED: Copy.NOTHING,
}


def listen(custody: Custody, tasks: TaskGroup) -> None:
    """Let a later connection settle `custody`, by one of `tasks`, until that is cancelled.

    Its socket is there on return, and not made beside what may remove its directory meanwhile.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        custody.incoming.socket.unlink(missing_ok=True)  # a dead agent's
        with nearby(custody.incoming.socket) as near:
            sock.bind(near)  # in a directory that nobody else may enter
        sock.listen()
    except OSError as error:
        sock.close()
        _logger.warning("nobody else can settle this migration here: %s", error)
        return
    tasks.start_soon(_serve, custody, sock)


async def _serve(custody: Custody, sock: socket.socket) -> None:
    async def answer(stream: SocketStream) -> None:
        async with stream:
            sock = stream.extra(SocketAttribute.raw_socket)
            if peer_uid(sock) not in (0, os.geteuid()):
                return
            control = agent_control(DescriptorStream.from_socket(sock.dup()))
            handler = _Handler(_Keeper(custody, owned=False))
            try:
                await serve(control, handler, Conversation(State.GREETED))
            except PeerError:
                pass
            except PhaulError as error:
                # Whoever asked hears nothing then; what is held here is held on.
                _logger.warning("a later connection: %s", error)
            finally:
                await control.aclose()

    async with await SocketListener.from_socket(sock) as listener:
        await listener.serve(answer)


async def find(
    base: Path, ask: m.Ask, engine: Engine, tasks: TaskGroup, lease_s: float = 600.0
) -> Settler:
    """Who answers for the migration that is asked for.

    Raises StateError if what lies there cannot be used.
    """
    if not base.is_dir():
        return _Nothing()
    require_ours(base, engine.host)
    for path in sorted(base.iterdir()):
        try:
            record = Journal(path, DestinationRecord).read()
        except StateError as error:
            _logger.warning("%s", error)
            continue
        if record is not None and secrets.compare_digest(record.key, ask.key):
            if ask.act:
                return await _take(path, record, engine, tasks, lease_s)
            return await _look(path, record)
    return _Nothing()


async def _look(path: Path, record: DestinationRecord) -> Settler:
    """Who says what is here, and changes nothing."""
    if is_locked(path):
        return await _reach(path, record.key) or _Glance(record, path, living=True)
    return _Glance(record, path, living=False)


async def _take(
    path: Path, record: DestinationRecord, engine: Engine, tasks: TaskGroup, lease_s: float
) -> Settler:
    try:
        incoming = Incoming.take_over(path)
        if incoming is None:
            relay = await _reach(path, record.key)
            if relay is not None:
                return relay
            incoming = await _fence(path, record, engine.host)
    except FileNotFoundError:
        return _Nothing()  # its agent has just ended, and removed it
    try:
        # Once more: its agent may have gone on until it ended.
        now = Journal(path, DestinationRecord).read()
        if now is None:
            incoming.close()
            return _Nothing()
        record = await _after_death(now, path, engine.host)
    except BaseException:
        incoming.stay()
        incoming.close()
        raise
    # A later connection has to know whom it may end.
    agent = Incarnation.of(os.getpid()) or record.agent
    custody = Custody(incoming, msgspec.structs.replace(record, agent=agent), engine, tasks)
    await custody.took_over()
    listen(custody, tasks)  # for the case that this connection is lost as well
    return _Keeper(custody, owned=True, lease_s=lease_s)


async def _reach(path: Path, key: str) -> Settler | None:
    """The living agent, None if it does not answer."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with nearby(path / SOCKET) as near:
            sock.connect(near)
        if peer_uid(sock) not in (0, os.geteuid()):
            raise ConnectionRefusedError
    except OSError:
        sock.close()
        return None
    control = source_control(DescriptorStream.from_socket(sock), "its agent")
    caller = Caller(control, "its agent")
    caller.conversation = Conversation(State.GREETED)
    try:
        await caller.call(m.Ask(key=key), _PATIENCE_S)
    except BaseException as error:
        await control.aclose()
        if not isinstance(error, PhaulError):
            raise
        return None
    return _Relay(caller, control.aclose)


async def _fence(path: Path, record: DestinationRecord, host: str) -> Incoming:
    """End an agent that does not answer, and take its place; raises StateError."""
    if record.agent.signal(signal.SIGKILL):
        _logger.warning("the agent with PID %d did not answer: it was ended", record.agent.pid)
    with anyio.move_on_after(_FENCE_S):
        while True:
            incoming = Incoming.take_over(path)
            if incoming is not None:
                return incoming
            await anyio.sleep(0.02)
    raise StateError(
        f"the agent that has {path} lives and does not answer",
        host=host,
        remedy=f"end it there (`fuser {path}`), then resolve again",
    )


async def _after_death(record: DestinationRecord, path: Path, host: str) -> DestinationRecord:
    """What the journal comes to when its agent is dead."""
    match record.state:
        case DestinationState.READY | DestinationState.AGAIN:
            await end_copy(record, host)
            return msgspec.structs.replace(record, state=DestinationState.IMAGES)
        case DestinationState.RELEASING:
            await criu_ended(record.cage, _CRIU_S)
            if record.images is not None and await runs(record, path / record.images):
                await leave(record)
                return msgspec.structs.replace(record, state=DestinationState.RUNNING)
            await end_copy(record, host)
            return msgspec.structs.replace(record, state=DestinationState.IMAGES, unsure=True)
        case DestinationState.RUNNING:
            await leave(record)
            return record
        case DestinationState.RECEIVING | DestinationState.RESTORING:
            await end_copy(record, host)
            return record
        case _:
            return record
