"""Datagrams of JSON and descriptors between the harness's processes, and what they are called.

A *leash* joins a process under test to its lane: it tells where it is, and waits to be let on.
"""

import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["Leash", "pair", "take", "tell"]

_MOST = 1 << 16
_DESCRIPTORS = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """Two joined ends for whole messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def tell(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send a message and descriptors, which stay the caller's.  Raises OSError."""
    data = json.dumps(message).encode()
    socket.send_fds(sock, [data], list(fds))


def take(sock: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message, None at the end, and its descriptors, now the caller's."""
    try:
        data, fds, _, _ = socket.recv_fds(sock, _MOST, _DESCRIPTORS)
    except ConnectionResetError:
        return None, []
    if not data:
        return None, list(fds)
    message: dict[str, Any] = json.loads(data)
    return message, list(fds)


class Leash:
    """The end of a process under test."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._turn = threading.Lock()

    def ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """Say something, and wait for what the lane answers."""
        with self._turn:
            tell(self._sock, message)
            answer, fds = take(self._sock)
        if answer is None:
            raise SystemExit("the lane has ended")
        return answer, fds

    def at(self, step: str, **more: object) -> None:
        """Say where this process is, and wait to be let on: here a fault may happen."""
        self.ask({"at": step, **more})

    def say(self, **message: object) -> None:
        """Say something that needs no answer."""
        tell(self._sock, message)
