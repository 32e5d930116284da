"""Both ends of a transport whose bytes pass through the lane, and CRIU's talk, step by step.

`LeashedSource` and `LeashedAgent` are a SourceEnd and an AgentEnd: the lane makes the channels and
stands between them.  `watch_criu` has each packet to and from a `criu swrk` told to the lane before
it goes on: CRIU waits meanwhile, so that what happens then happens exactly there.
"""

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from phaul.criu import swrk
from phaul.criu.rpc import Request, RequestType, Response
from phaul.destination.memory import LazyMemory
from phaul.errors import ConnectFailed, ConnectionLost
from phaul.storage.journal import Journal, SourceRecord
from phaul.transport.control import agent_control, source_control
from phaul.transport.descriptors import DescriptorStream
from phaul.transport.end import Closing
from tests.faults.tuning import SILENCE_S
from tests.faults.wire import Leash, take

__all__ = [
    "LeashedAgent",
    "LeashedSource",
    "null_streams",
    "watch_criu",
    "watch_journal",
    "watch_memory",
]

_NAMES = {
    RequestType.DUMP: "dump",
    RequestType.RESTORE: "restore",
}


class LeashedSource(Closing):
    """The source's end; entering it asks the lane for an agent."""

    def __init__(self, leash: Leash) -> None:
        self._leash = leash

    @property
    def memory_sent(self) -> int | None:
        """The lane counts, and does not tell."""
        return None

    async def __aenter__(self) -> "LeashedSource":
        answer, fds = self._leash.ask({"do": "connect"})
        if not fds:
            raise ConnectFailed(f"host2 cannot be reached: {answer['refused']}", host="host2")
        stream = DescriptorStream.from_socket(socket.socket(fileno=fds[0]))
        self.control = source_control(stream, "host2", silence=SILENCE_S)
        return self

    async def open_memory(self, token: str) -> socket.socket:
        """Ask the lane for the memory channel."""
        answer, fds = self._leash.ask({"do": "memory", "token": token})
        if not fds:
            raise ConnectFailed(f"no memory channel: {answer['refused']}", host="host2")
        return socket.socket(fileno=fds[0])

    async def aclose(self) -> None:
        """Close the control channel; the lane hears of it, and the agent after it."""
        if hasattr(self, "control"):
            await self.control.aclose()


class LeashedAgent(Closing):
    """The agent's end; the memory channel comes through `door` when the source opens it."""

    def __init__(self, leash: Leash, control: socket.socket, door: socket.socket) -> None:
        self.control = agent_control(DescriptorStream.from_socket(control), silence=SILENCE_S)
        self.token = secrets.token_hex(16)
        self._door = door
        leash.say(token=self.token)

    async def accept_memory(self, timeout: float) -> socket.socket:
        """Wait for the memory channel; raises ConnectionLost."""
        with anyio.move_on_after(timeout):
            await anyio.wait_readable(self._door)
            _, fds = take(self._door)
            if fds:
                return socket.socket(fileno=fds[0])
        raise ConnectionLost(f"no memory channel within {timeout:g} s", host="source")

    async def aclose(self) -> None:
        """Close both."""
        self._door.close()
        await self.control.aclose()


def watch_criu(leash: Leash) -> None:
    """Have every packet to and from this process's workers told to the lane before it goes on."""
    send, receive, answer = (
        swrk.Swrk.send,
        swrk.Swrk.receive,
        swrk.Swrk.answer_notification,
    )
    at: dict[int, str] = {}

    def tell(worker: swrk.Swrk, name: str, what: str) -> None:
        leash.at(f"criu/{name}/{what}", criu=worker.process.pid, role=name)

    async def watched_send(self: swrk.Swrk, request: Request) -> None:
        if name := _NAMES.get(request.type):
            tell(self, name, "request")
        await send(self, request)

    async def watched_receive(self: swrk.Swrk, request: str) -> Response:
        response = await receive(self, request)
        kind = RequestType[request] if request in RequestType.__members__ else None
        if kind in _NAMES:
            stage = response.stage.value if response.script is not None and response.stage else ""
            at[id(self)] = stage
            tell(self, _NAMES[kind], stage or "answer")
        return response

    async def watched_answer(self: swrk.Swrk, *, accept: bool) -> None:
        stage = at.get(id(self), "")
        if stage in {"post-dump", "post-restore"}:
            name = stage.removeprefix("post-")
            tell(self, name, "released" if accept else "refused")
        await answer(self, accept=accept)

    methods: dict[str, Any] = {
        "send": watched_send, "receive": watched_receive, "answer_notification": watched_answer,
    }  # fmt: skip
    for name, method in methods.items():
        setattr(swrk.Swrk, name, method)


def watch_memory(leash: Leash) -> None:
    """Have the lane told who the keeper is, before it is asked for the restore, and after."""
    ready, guard = LazyMemory.ready, LazyMemory.guard

    def tell(memory: LazyMemory, what: str) -> None:
        if memory.keeper is not None:
            leash.at(f"memory/{what}", criu=memory.keeper.pid, role="keeper")

    async def watched_ready(self: LazyMemory, images: Path) -> bool:
        await self.here.wait()
        tell(self, "ready")
        return await ready(self, images)

    async def watched_guard(self: LazyMemory, pid: int) -> None:
        await guard(self, pid)
        tell(self, "guard")

    methods: dict[str, Any] = {"ready": watched_ready, "guard": watched_guard}
    for name, method in methods.items():
        setattr(LazyMemory, name, method)


def watch_journal(leash: Leash) -> None:
    """Have each state that is written down told to the lane, before and after."""
    write, put = Journal.write, Journal.put
    counts: dict[str, int] = {}

    def watched(record: Any, do: Callable[[], Any]) -> Any:  # noqa: ANN401
        host = "source" if isinstance(record, SourceRecord) else "destination"
        name = f"journal/{host}/{record.state.value}"
        number = counts[name] = counts.get(name, 0) + 1
        name = name if number == 1 else f"{name}#{number}"
        leash.at(f"{name}-")
        done = do()
        leash.at(f"{name}+")
        return done

    def watched_write(self: Journal[Any], record: Any, *, sync: bool) -> Any:  # noqa: ANN401
        return watched(record, lambda: write(self, record, sync=sync))

    def watched_put(self: Journal[Any]) -> None:
        watched(self.laid, lambda: put(self))

    methods: dict[str, Any] = {"write": watched_write, "put": watched_put}
    for name, method in methods.items():
        setattr(Journal, name, method)


def null_streams(log: str) -> None:
    """Standard input from nowhere, the rest into a log."""
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, descriptor in ((0, null), (1, out), (2, out)):
        os.dup2(descriptor, target)
    os.close(null)
    os.close(out)
