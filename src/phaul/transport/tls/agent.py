"""One connection, on the destination: who is it, what does it want, and then be that.

Used on the destination, by `phaul agent --connection FD`, one process for each connection: one that
dies harms no other.  Whoever has not shown within LIMIT_S that he may come in is gone.
"""

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from phaul.errors import ConnectionLost, NotTrusted, PeerError, PhaulError, ProtocolError
from phaul.transport.base import AgentEnd
from phaul.transport.control import SILENCE_S, agent_control
from phaul.transport.end import DoorAgent
from phaul.transport.splice import connect_memory
from phaul.transport.tls.context import server_context
from phaul.transport.tls.door import Door
from phaul.transport.tls.greeting import LONGEST, OK, Greeting, Purpose, Refusal
from phaul.transport.tls.join import answer_join
from phaul.transport.tls.pump import Pump
from phaul.transport.tls.stream import TlsStream, keep_alive

__all__ = ["LIMIT_S", "RunAgent", "TlsAgent", "answer_connection"]

LIMIT_S: Final = 10.0
"""How long a client may take to show that it may come in, in seconds."""

RunAgent = Callable[[AgentEnd], Awaitable[int]]
"""The agent of one migration, over its end of the transport; it gives the exit status."""

_MemoryEnds = tuple[ssl.SSLSocket, socket.socket]


class TlsAgent(DoorAgent):
    """An AgentEnd over a connection that has been let in, which it owns."""

    def __init__(self, stream: TlsStream, *, silence: float = SILENCE_S) -> None:
        super().__init__(agent_control(stream, silence=silence))


def answer_connection(
    descriptor: int,
    door: Door,
    run_agent: RunAgent,
    *,
    report: int | None = None,
    limit: float = LIMIT_S,
) -> int:
    """Answer an accepted connection, to its end; returns the exit status.

    Both descriptors are its own.  What the connection turned out to be is written to `report`: the
    first letter of its Purpose, once it has been let in.  Raises PeerError for one that may not
    come in, or broke; StateError; and what the agent raises.
    """
    for inherited in (descriptor, report):
        if inherited is not None:
            os.set_inheritable(inherited, False)  # no CRIU, and no restored process, may keep it
    sock = socket.socket(fileno=descriptor)
    who = _name(sock)
    try:
        became = anyio.run(partial(_answer, sock, door, run_agent, report, limit))
        if isinstance(became, int):
            return became
        pump = Pump(*became)
        pump.run()
        if pump.fault:
            raise ConnectionLost(f"the memory channel broke: {pump.fault}")
    except PhaulError as error:
        error.host = error.host or who
        raise
    return 0


async def _answer(
    sock: socket.socket, door: Door, run_agent: RunAgent, report: int | None, limit: float
) -> _MemoryEnds | int:
    try:
        with anyio.fail_after(limit):
            stream, greeting = await _let_in(sock, door)
        if report is not None:
            with suppress(OSError):  # the daemon may have ended; its connections go on
                os.write(report, greeting.purpose.value[:1].encode())
    except TimeoutError as error:
        raise PeerError(f"it did not say within {limit:g} s who it is") from error
    finally:
        if report is not None:
            os.close(report)
    if greeting.purpose is Purpose.MEMORY:
        return await _memory(stream, greeting.token)
    try:
        if greeting.purpose is Purpose.CONTROL:
            await stream.send(OK + b"\n")
            async with TlsAgent(stream) as end:
                return await run_agent(end)  # which closes it as well
    finally:
        await stream.aclose()
    return 0


async def _let_in(sock: socket.socket, door: Door) -> tuple[TlsStream, Greeting]:
    """Find out who it is and what it wants; a join is answered here, within the same limit."""
    trusted = door.trusted()
    joinable = door.joinable()
    context = server_context(door.identity(), trusted.values(), joinable=joinable)
    try:
        keep_alive(sock)
        stream = await TlsStream.handshake(sock, context, server_side=True)
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise PeerError(f"the handshake failed: {why}") from error
    try:
        # Compared as a whole: the library would also take what a trusted one has signed.
        known = stream.peer in trusted.values()
        greeting = await _greeting(stream)
        if greeting.purpose is Purpose.JOIN and joinable:
            await answer_join(stream, door)
        elif not known or greeting.purpose is Purpose.JOIN:
            await _refuse(stream, Refusal.NOT_TRUSTED)
            raise NotTrusted("it may not come in: its certificate is not trusted here")
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        await stream.aclose()
        raise PeerError("it left before it was let in") from error
    except BaseException:
        await stream.aclose()
        raise
    return stream, greeting


async def _greeting(stream: TlsStream) -> Greeting:
    try:
        return Greeting.parse(await stream.read_line(LONGEST))
    except ValueError as error:
        await _refuse(stream, Refusal.GARBAGE)
        raise ProtocolError(str(error)) from error


async def _memory(stream: TlsStream, token: str) -> _MemoryEnds:
    """Join it to the agent's memory door."""
    try:
        near = connect_memory(token)
    except PhaulError:
        await _refuse(stream, Refusal.NO_AGENT)
        await stream.aclose()
        raise
    try:
        await stream.send(OK + b"\n")
    except anyio.BrokenResourceError as error:
        near.close()
        await stream.aclose()
        raise ConnectionLost(f"the memory channel broke: {stream.fault}") from error
    return stream.detach(), near


async def _refuse(stream: TlsStream, refusal: Refusal) -> None:
    with suppress(anyio.BrokenResourceError):
        await stream.send(refusal.line)


def _name(sock: socket.socket) -> str:
    try:
        host, port, *_ = sock.getpeername()
    except (OSError, ValueError):
        return "client"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
