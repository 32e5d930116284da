"""The memory channel's door, and the process that splices into it."""

import os
import socket
import subprocess
import sys
import threading
from functools import partial

import anyio
import anyio.to_thread
import pytest

from phaul.errors import ConnectionLost, UsageError
from phaul.transport.memory import MemoryDoor
from phaul.transport.splice import READY, splice_memory

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
LIMIT = 60.0


def receive(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count and (data := sock.recv(min(count, 1 << 16))):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


@pytest.mark.parametrize("pipes", [False, True])
async def test_bytes_both_ways(pipes: bool) -> None:
    data = os.urandom(5_000_000)
    door = MemoryDoor()
    source, ours = socket.socketpair()
    source.settimeout(LIMIT)
    feeders: list[int] = []
    if pipes:
        reader, into = os.pipe()
        out, writer = os.pipe()
        feeders = [into, out]
    else:
        reader = writer = ours.fileno()
    thread = threading.Thread(target=splice_memory, args=(door.token, reader, writer))
    thread.start()
    agent = await door.accept(LIMIT)
    door.close()
    agent.settimeout(LIMIT)

    def read(count: int) -> bytes:
        if not pipes:
            return receive(source, count)
        parts = []
        while count and (part := os.read(feeders[1], min(count, 1 << 16))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def send() -> None:
        if not pipes:
            source.sendall(data)
            return
        view = memoryview(data)
        while view:
            view = view[os.write(feeders[0], view) :]

    def work() -> None:
        assert read(len(READY)) == READY
        sender = threading.Thread(target=send)
        sender.start()
        assert receive(agent, len(data)) == data
        sender.join()
        back = threading.Thread(target=agent.sendall, args=(data,))
        back.start()
        assert read(len(data)) == data
        back.join()
        # The source goes: the agent reads the end.
        if pipes:
            os.close(feeders.pop(0))
        else:
            source.shutdown(socket.SHUT_RDWR)
        assert agent.recv(10) == b""
        agent.close()
        thread.join(LIMIT)

    await anyio.to_thread.run_sync(work)
    assert not thread.is_alive()
    for sock in (source, ours, agent):
        sock.close()
    if pipes:
        for descriptor in (reader, writer, *feeders):
            os.close(descriptor)


async def test_an_agent_that_goes_ends_it() -> None:
    door = MemoryDoor()
    source, ours = socket.socketpair()
    with source, ours:
        thread = threading.Thread(
            target=splice_memory, args=(door.token, ours.fileno(), ours.fileno())
        )
        thread.start()
        (await door.accept(LIMIT)).close()
        door.close()
        await anyio.to_thread.run_sync(thread.join, LIMIT)
        assert not thread.is_alive()
        source.shutdown(socket.SHUT_RDWR)  # for the thread that still reads; a process would end
        await anyio.sleep(0.1)


async def test_nobody_comes() -> None:
    door = MemoryDoor()
    with pytest.raises(ConnectionLost, match="no memory channel"):
        await door.accept(0.01)
    door.close()
    door.close()


def test_no_such_agent() -> None:
    with pytest.raises(ConnectionLost, match="no phaul agent"):
        splice_memory("0" * 32)


@pytest.mark.parametrize("token", ["", "x", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(UsageError):
        splice_memory(token)


async def test_another_user_is_turned_away(unprivileged: list[str]) -> None:
    door = MemoryDoor()
    name = f"\\0phaul-memory-{door.token}"
    code = f"import socket; s = socket.socket(1); s.connect('{name}'); print(s.recv(9))"
    command = [*unprivileged, sys.executable, "-c", code]
    taken: list[socket.socket] = []

    async def accept() -> None:
        taken.append(await door.accept(LIMIT))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        # Let in it would wait for ever; turned away it reads the end.
        done = await anyio.to_thread.run_sync(
            partial(subprocess.run, command, capture_output=True, text=True, cwd="/", timeout=LIMIT)
        )
        assert not taken
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(f"\0phaul-memory-{door.token}")
            while not taken:
                await anyio.sleep(0.01)
    assert done.returncode == 0
    assert done.stdout == "b''\n"
    taken[0].close()
    door.close()
