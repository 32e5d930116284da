"""The daemon with real processes: one for each connection, reaped, and none harms another."""

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from phaul import errors as e
from phaul.protocol import messages as m
from phaul.transport.caller import Caller
from phaul.transport.tls.daemon import Daemon, Limits
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import Address, KnownHost
from tests.unit.conftest import children, state
from tests.unit.protocol.samples import HELLO, PREPARE
from tests.unit.transport.tls.conftest import LIMIT, Hosts

pytestmark = pytest.mark.anyio
COMMAND = (sys.executable, str(Path(__file__).with_name("fake_connection.py")))


class Running:
    """A daemon in this process, and where it listens."""

    def __init__(self, hosts: Hosts, daemon: Daemon, address: Address) -> None:
        self._hosts = hosts
        self.daemon = daemon
        self.address = address
        self.over = anyio.Event()

    def source(self) -> TlsSource:
        known = KnownHost("host2", self.address, self._hosts.theirs.identity().certificate)
        return TlsSource(known, self._hosts.ours.identity(), connect_timeout=LIMIT)

    def connect(self) -> socket.socket:
        sock = socket.create_connection((self.address.host, self.address.port), LIMIT)
        sock.setblocking(False)
        return sock


@asynccontextmanager
async def running(
    hosts: Hosts, *, fake: str = "", once: bool = False, limits: Limits | None = None
) -> AsyncIterator[Running]:
    hosts.trust()
    before = children()
    listener = socket.create_server(("127.0.0.1", 0))
    address = Address("127.0.0.1", listener.getsockname()[1])
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PHAUL_STATE": str(hosts.theirs.path),
        "FAKE_CONNECTION": fake,
    }
    made = Running(
        hosts, Daemon([listener], COMMAND, environment, once=once, limits=limits), address
    )

    async def run() -> None:
        await made.daemon.run()
        made.over.set()

    try:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                yield made
                made.daemon._over.set()
    finally:
        for pid in children() - before:  # those that the daemon has left to go on
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


async def gone(before: set[int]) -> None:
    """Until all processes of connections are reaped."""
    while children() - before:
        await anyio.sleep(0.01)


async def readable_end(sock: socket.socket) -> None:
    await anyio.wait_readable(sock)
    with suppress(ConnectionResetError):
        assert sock.recv(1) == b""


async def test_a_migration_s_two_connections(hosts: Hosts) -> None:
    before = children()
    async with running(hosts) as daemon:
        async with daemon.source() as source:
            caller = Caller(source.control, "host2")
            welcome = await caller.hello(HELLO, LIMIT)
            with await source.open_memory(welcome.token) as memory:
                started = children() - before
                assert len(started) == 2
                # Sessions of their own: Ctrl-C at the daemon's terminal does not reach them.
                assert all(os.getsid(pid) == pid for pid in started)
                await caller.call(PREPARE, LIMIT)
                memory.sendall(b"pages")
                await caller.call(m.StartRound(number=0), LIMIT)
                assert memory.recv(100) == b"PAGES"
                await caller.call(m.StopRound(number=0), LIMIT)
                await caller.call(m.Bye(), LIMIT)
        await gone(before)


async def test_one_that_dies_harms_no_other(hosts: Hosts) -> None:
    before = children()
    async with running(hosts) as daemon, daemon.source() as first:
        caller = Caller(first.control, "host2")
        await caller.hello(HELLO, LIMIT)
        (survivor,) = children() - before
        async with daemon.source() as second:
            other = Caller(second.control, "host2")
            await other.hello(HELLO, LIMIT)
            (victim,) = children() - before - {survivor}
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(e.ConnectionLost):
                await other.call(PREPARE, LIMIT)
        while victim in children():
            await anyio.sleep(0.01)
        assert state(survivor) in {"R", "S"}
        await caller.call(m.Bye(), LIMIT)
        await gone(before)


async def test_one_that_is_killed_at_its_start(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    async with running(hosts, fake="die", limits=Limits(unknown=1, most=1)) as daemon:
        # One place: each is given back.
        for _ in range(3):
            with daemon.connect() as sock:
                await readable_end(sock)
        await gone(before)
    assert "status -9" in caplog.text


async def test_one_that_never_says_that_it_was_let_in_is_killed(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    limits = Limits(unknown=1, most=2, unknown_s=0.2)
    async with running(hosts, fake="silent", limits=limits) as daemon:
        with daemon.connect() as first, daemon.connect() as second:
            await readable_end(first)
            await readable_end(second)
        await gone(before)
    assert "it took too long" in caplog.text


async def test_unknown_ones_fill_their_places_only(hosts: Hosts) -> None:
    before = children()
    async with running(hosts, fake="silent", limits=Limits(unknown=2, most=8)) as daemon:
        socks = [daemon.connect() for _ in range(5)]
        while len(children() - before) < 2:
            await anyio.sleep(0.01)
        await anyio.sleep(0.2)
        assert len(children() - before) == 2
        for sock in socks:
            sock.close()


async def test_once(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "phaul.serve")
    async with running(hosts, once=True) as daemon:
        with daemon.connect() as sock:  # one that was not let in does not count
            sock.sendall(b"x" * 100)
            await readable_end(sock)
        async with daemon.source() as source:
            caller = Caller(source.control, "host2")
            await caller.hello(HELLO, LIMIT)
            assert not daemon.over.is_set()
            await caller.call(m.Bye(), LIMIT)
        await daemon.over.wait()
    assert "ended with status 0" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_daemon_and_no_agent(hosts: Hosts, number: signal.Signals) -> None:
    before = children()
    async with running(hosts) as daemon, daemon.source() as source:
        caller = Caller(source.control, "host2")
        await caller.hello(HELLO, LIMIT)
        (agent,) = children() - before
        os.kill(os.getpid(), number)
        await daemon.over.wait()
        with pytest.raises(e.ConnectionRefused):
            await daemon.source().__aenter__()
        # The agent goes on, to its end.
        await caller.call(PREPARE, LIMIT)
        await caller.call(m.Bye(), LIMIT)
        while state(agent) != "Z":
            await anyio.sleep(0.01)


async def test_a_program_that_is_not_there(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    daemon = Daemon([listener], ["/nonexistent"], {})
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon.run)
            with socket.create_connection(listener.getsockname(), LIMIT) as sock:
                sock.setblocking(False)
                await readable_end(sock)
            daemon._over.set()
    assert "no process for 127.0.0.1" in caplog.text
