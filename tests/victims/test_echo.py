"""The echo server and its client: each finds itself whole, and what is wrong with the other."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.victims.conftest import Start, has_problem


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_echo_between_a_client_and_the_server(begin: Start) -> None:
    server = begin("echo_server", "--listen", "127.0.0.1:0")
    port = server.check().data["port"]
    client = begin("echo_client", "--connect", f"127.0.0.1:{port}", "--connections", 3)
    wait_for(lambda: client.check().counter > 20)
    there, here = client.check(), server.check()
    assert (there.problems, here.problems) == ([], [])
    assert there.data["open_connections"] == here.data["open_connections"] == 3
    client.terminate()
    wait_for(lambda: server.check().data["open_connections"] == 0)
    assert server.check().problems == []


def test_echo_client_finds_that_the_server_went_away(begin: Start) -> None:
    server = begin("echo_server", "--listen", "127.0.0.1:0")
    port = server.check().data["port"]
    client = begin("echo_client", "--connect", f"127.0.0.1:{port}")
    wait_for(lambda: client.check().counter > 3)
    server.kill(signal.SIGKILL)
    wait_for(lambda: not client.check().ok)
    assert has_problem(client.check(), "connection 0,")


def corrupting_server(listener: socket.socket, at: int) -> None:
    """Echo, but change the byte at this place of the stream."""
    connection, _ = listener.accept()
    with connection:
        seen = 0
        # The client resets the connection once it has seen enough.
        with contextlib.suppress(ConnectionError):
            while data := bytearray(connection.recv(4096)):
                if seen <= at < seen + len(data):
                    data[at - seen] ^= 1
                seen += len(data)
                connection.sendall(data)


@pytest.mark.parametrize(
    ("at", "words"), [(0, "header"), (8, "header"), (24, "payload byte 0"), (500, "payload byte")]
)
def test_echo_client_finds_a_wrong_byte(begin: Start, at: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=corrupting_server, args=(listener, at))
        thread.start()
        client = begin("echo_client", "--connect", f"127.0.0.1:{listener.getsockname()[1]}")
        wait_for(lambda: not client.check().ok)
        assert has_problem(client.check(), words)
        thread.join()


@pytest.mark.parametrize(
    ("sent", "words"), [(b"\1" * 24, "header"), (b"echo"[:3], "closed within a record")]
)
def test_echo_server_finds_wrong_bytes(begin: Start, sent: bytes, words: str) -> None:
    server = begin("echo_server", "--listen", "127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", server.check().data["port"])) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    wait_for(lambda: not server.check().ok)
    assert has_problem(server.check(), words)
