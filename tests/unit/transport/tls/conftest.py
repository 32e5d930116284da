"""Two hosts with real certificates, and a destination whose connections are threads of the test."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from phaul.protocol.agent import Conversation
from phaul.storage.keyring import Keyring
from phaul.storage.state_dir import StateDir
from phaul.transport.answering import serve
from phaul.transport.base import AgentEnd
from phaul.transport.tls.agent import RunAgent, answer_connection
from phaul.transport.tls.certificate import Identity
from phaul.transport.tls.context import client_context
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import Address, KnownHost
from tests.unit.transport.fake_agent import EchoAgent

LIMIT = 60.0


def keyring(path: Path) -> Keyring:
    """A host's keyring, its identity made."""
    made = Keyring(StateDir.open(path))
    made.identity()
    return made


async def echo(end: AgentEnd) -> int:
    """An agent that takes all."""
    async with end:
        await serve(end.control, EchoAgent(end), Conversation(), "host2")
    return 0


@dataclass
class Outcome:
    """What became of a connection: a status or an error, and what it reported."""

    became: int | BaseException
    reported: bytes


class Server:
    """A destination on 127.0.0.1; each connection is answered in a thread, with `limit` seconds."""

    def __init__(self, door: Keyring, run_agent: RunAgent = echo, limit: float = LIMIT) -> None:
        self.door = door
        self.run_agent = run_agent
        self.limit = limit
        self.outcomes: list[Outcome] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._listener.getsockname()[1])

    def known(self, name: str = "host2") -> KnownHost:
        return KnownHost(name, self.address, self.door.identity().certificate)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(LIMIT)
        self._listener.close()
        self.wait()

    def wait(self) -> list[Outcome]:
        """What became of all connections, when they have ended."""
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        return self.outcomes

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._answer, args=(sock.detach(),))
                self._threads.append(thread)
                thread.start()

    def _answer(self, descriptor: int) -> None:
        reader, writer = os.pipe()
        became: int | BaseException
        try:
            became = answer_connection(
                descriptor, self.door, self.run_agent, report=writer, limit=self.limit
            )
        except BaseException as error:
            became = error
        with os.fdopen(reader, "rb") as reports:
            self.outcomes.append(Outcome(became, reports.read()))


@dataclass
class Hosts:
    """The source's keyring, the destination's, and what makes destinations."""

    ours: Keyring
    theirs: Keyring
    serve: Callable[..., Server]

    def trust(self) -> None:
        self.theirs.trust("host1", self.ours.identity().certificate)

    def source(self, server: Server) -> TlsSource:
        return TlsSource(server.known(), self.ours.identity(), connect_timeout=LIMIT)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    servers: list[Server] = []
    theirs = keyring(tmp_path / "theirs")

    def start(**changes: object) -> Server:
        server = Server(theirs, **changes)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield Hosts(keyring(tmp_path / "ours"), theirs, start)
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def nothing_left(no_leaks: None) -> Iterator[None]:
    """Neither descriptors nor children, nor a thread."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if "phaul" in thread.name or "answer" in thread.name]


def handshake(
    server: Server, identity: Identity | None, context: ssl.SSLContext | None = None
) -> ssl.SSLSocket:
    """A client by hand, blocking, for what no phaul would do."""
    if context is None:
        if identity is not None:
            context = client_context(identity, server.door.identity().certificate)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    sock = socket.create_connection((server.address.host, server.address.port), LIMIT)
    try:
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


def tls12(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
