"""A running migration is steered from another terminal: asked how it stands, changed, cancelled.

Runs on the source: `serve` in the phaul that migrates, from connecting to the end; `ask` in the
one whose user asks.  They speak over a unix socket in the migration's own directory, which only
its user and root may enter; the kernel says who asks all the same.  One question a connection:

    ask --> Status | SetMaxDowntime | Cancel
        <-- Standing | Changed | Cancelling | Refused
"""

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Never, Protocol

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from msgspec import Meta

from phaul.errors import (
    ConnectionLost,
    ConnectionRefused,
    ConnectTimeout,
    PhaulError,
    ProtocolError,
    UsageError,
)
from phaul.protocol.frames import Decoder, Frame, Kind, pack
from phaul.protocol.types import Bytes, Message, RoundNumber, Text
from phaul.storage.entry import State, bounded
from phaul.transport.peer import nearby, peer_uid

__all__ = [
    "Answer",
    "Cancel",
    "Cancelling",
    "Changed",
    "Refused",
    "Request",
    "SetMaxDowntime",
    "Standing",
    "Status",
    "Steering",
    "ask",
    "serve",
]

_PATIENCE_S: Final = 5.0
"""How long one question may take, its way both ways included."""
_MOST_AT_ONCE: Final = 8
_MOST_REQUEST: Final = 1024
_READ: Final = 4096
_AGAIN_S: Final = 1.0

_logger = logging.getLogger("phaul")

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Cancel the migration, if that can still be."""


class SetMaxDowntime(Message, frozen=True, kw_only=True, tag="set-max-downtime"):
    """From now on the downtime may be this long."""

    seconds: Seconds


class Status(Message, frozen=True, kw_only=True, tag="status"):
    """How does it stand right now?"""


class Standing(Message, frozen=True, kw_only=True, tag="standing"):
    """How it stands: what the entry does not say, as it is written only at each round.

    `number` is the round under way, None between rounds; `sent_bytes` of about `expected_bytes`
    are sent in it, since `round_s` seconds.  `max_downtime_s` is what the downtime may be now,
    `share` how much of its CPU time the process has.
    """

    state: State
    number: RoundNumber | None = None
    sent_bytes: Bytes = 0
    expected_bytes: Bytes = 0
    round_s: float = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    max_downtime_s: float | None = None


class Cancelling(Message, frozen=True, kw_only=True, tag="cancelling"):
    """Whether it is going to be cancelled; if not, it is too late to."""

    accepted: bool


class Changed(Message, frozen=True, kw_only=True, tag="changed"):
    """It is done as asked."""


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """It was not done, and why."""

    what: Text
    remedy: Text = ""


Request = Cancel | SetMaxDowntime | Status
"""Any question."""

Answer = Standing | Cancelling | Changed | Refused
"""Any answer."""


class Steering(Protocol):
    """The migration, as far as it can be steered; called in the event loop's thread."""

    def cancel(self) -> bool:
        """Ask for the cancel; returns whether there will be one, False when it is too late."""

    def set_max_downtime(self, seconds: float) -> None:
        """Change what the downtime may be; raises a PhaulError if that cannot be any more."""

    def status(self) -> Standing:
        """How it stands."""


async def serve(
    path: Path,
    steering: Steering,
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> Never:
    """Answer at the socket `path` until it is cancelled; started once it listens.

    A task of the migration's task group: nothing that anybody says there makes it fail.  A socket
    that is left of a dead phaul is replaced.  Raises OSError if it cannot listen.
    """
    with nearby(path) as near:
        listener = await anyio.create_unix_listener(near, mode=0o600)
    limiter = anyio.Semaphore(_MOST_AT_ONCE)

    async def handle(stream: SocketStream) -> None:
        async with stream:
            # More than so many at once are not served: they are told by the closed connection.
            with suppress(anyio.WouldBlock):
                limiter.acquire_nowait()
                try:
                    await _answer(stream, steering)
                finally:
                    limiter.release()

    try:
        async with listener:
            task_status.started()
            while True:
                try:
                    await listener.serve(handle)
                except* OSError as errors:  # no descriptor is free, say: later one may be
                    _logger.warning("nobody can steer this migration: %s", errors.exceptions[0])
                await anyio.sleep(_AGAIN_S)
    finally:
        with suppress(OSError):
            path.unlink()


async def _answer(stream: SocketStream, steering: Steering) -> None:
    gone = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
    with suppress(*gone, ProtocolError), anyio.move_on_after(_PATIENCE_S):
        if peer_uid(stream.extra(SocketAttribute.raw_socket)) not in (0, os.geteuid()):
            return
        payload = await _receive(lambda: stream.receive(_READ))
        await stream.send(_packed(_do(payload, steering)))


async def _receive(read: Callable[[], Awaitable[bytes]]) -> bytes:
    decoder = Decoder()
    while True:
        for frame in decoder.feed(await read()):
            return _control(frame)
        if decoder.buffered > _MOST_REQUEST:
            raise ProtocolError("a question is too long")


def _control(frame: Frame) -> bytes:
    if frame.kind is not Kind.CONTROL:
        raise ProtocolError("a frame that is no message")
    return frame.payload


def _packed(answer: Answer) -> bytes:
    return pack(Frame(Kind.CONTROL, msgspec.json.encode(answer)))


def _do(payload: bytes, steering: Steering) -> Answer:
    """The answer; whatever goes wrong is told to the one who asked, and ends no migration."""
    try:
        request = _decode_request(payload)
        match request:
            case Cancel():
                return Cancelling(accepted=steering.cancel())
            case SetMaxDowntime(seconds=seconds):
                steering.set_max_downtime(seconds)
                return Changed()
            case Status():
                return steering.status()
    except PhaulError as error:
        return Refused(what=bounded(error.what), remedy=bounded(error.remedy))
    except Exception as error:
        _logger.exception("a question from another terminal could not be answered")
        return Refused(what=bounded(f"unexpected {type(error).__name__}: {error}"))


def _decode_request(payload: bytes) -> Request:
    try:
        request: Request = msgspec.json.decode(payload[: _MOST_REQUEST + 1], type=Request)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"that is no question: {str(error)[:200]}") from None
    return request


def ask(path: Path, request: Request, timeout: float = _PATIENCE_S) -> Answer:
    """Ask the migration that listens at `path`; returns within about `timeout` seconds.

    Raises ConnectionRefused if nobody listens there (the socket of a phaul that has died, or none),
    ConnectTimeout, ConnectionLost if it ends without an answer, ProtocolError, and UsageError if
    the request is out of bounds.
    """
    payload = msgspec.json.encode(request)
    try:
        _decode_request(payload)
    except ProtocolError as error:
        raise UsageError(error.what) from error
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(timeout)
            with nearby(path) as near:
                sock.connect(near)
            sock.sendall(pack(Frame(Kind.CONTROL, payload)))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as error:
            raise ConnectionRefused("no migration listens there: it has ended") from error
        except BrokenPipeError as error:
            raise ConnectionLost("it ended before it was asked") from error
        except TimeoutError as error:
            raise ConnectTimeout(f"it took no question within {timeout:g} s") from error
        except OSError as error:
            raise ConnectionRefused(f"it cannot be asked: {error.strerror}") from error
        return _read_answer(sock, deadline)


def _read_answer(sock: socket.socket, deadline: float) -> Answer:
    decoder = Decoder()
    while True:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = sock.recv(_READ)
        except TimeoutError as error:
            raise ConnectTimeout("it did not answer in time") from error
        except OSError as error:
            raise ConnectionLost(f"it cannot be asked: {error.strerror}") from error
        if not data:
            raise ConnectionLost("it ended without an answer")
        for frame in decoder.feed(data):
            try:
                answer: Answer = msgspec.json.decode(_control(frame), type=Answer)
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"that is no answer: {str(error)[:200]}") from None
            return answer
