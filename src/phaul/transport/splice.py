"""The memory channel's way from a second ssh into the agent.

Used on the destination.  The source starts a second `phaul agent --memory TOKEN` through the same
ssh connection.  That process is `splice_memory`: it connects to the agent, says READY, and moves
the bytes between the agent and its own standard input and output inside the kernel.  The agent has
a `MemoryDoor` for it.  The source waits for that process's start, so little is imported here.

The socket between the two is an abstract one named by the token: there is no directory on which
two processes would have to agree, and no file to be left behind.  The token cannot be guessed, but
its name can be read in /proc/net/unix: so each side looks whether the other is the same user.
"""

import errno
import os
import re
import socket
import threading
from contextlib import suppress
from typing import Final

from phaul.errors import ConnectionLost, UsageError
from phaul.transport.peer import peer_uid

__all__ = ["READY", "connect_memory", "door_address", "is_ours", "require_token", "splice_memory"]

READY: Final = b"phaul memory channel 1\n"
"""What the source reads first; anything else there was written by somebody else."""

_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_CHUNK: Final = 1 << 20
_CONNECT_S: Final = 10.0


def splice_memory(token: str, reader: int = 0, writer: int = 1) -> None:
    """Be the memory channel between the descriptors and the agent with the token, to its end.

    Raises UsageError for what is no token, ConnectionLost if there is no such agent.  The process
    should end soon after the return: a thread may still wait for the source.
    """
    with connect_memory(token) as sock:
        with suppress(OSError):
            os.set_blocking(reader, True)
            os.set_blocking(writer, True)
            os.write(writer, READY)
            threading.Thread(target=_inward, args=(reader, sock.dup()), daemon=True).start()
            _move(sock.fileno(), writer)
        # The agent has ended it, or nobody reads: half a channel is of no use.
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def connect_memory(token: str) -> socket.socket:
    """The memory channel of the agent on this machine that has the token, a blocking unix socket.

    Raises UsageError for what is no token, ConnectionLost if there is no such agent.
    """
    require_token(token)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(_CONNECT_S)
    try:
        sock.connect(door_address(token))
        if not is_ours(sock):
            raise ConnectionRefusedError
    except OSError as error:
        sock.close()
        raise ConnectionLost(
            "there is no phaul agent with this memory channel",
            remedy="if users or network namespaces differ between two logins, make them the same",
        ) from error
    sock.settimeout(None)
    return sock


def require_token(token: str) -> None:
    """Raise UsageError unless this is a token: it becomes a word of a command line."""
    if not _TOKEN.fullmatch(token):
        raise UsageError("that is not the token of a memory channel")


def _inward(reader: int, sock: socket.socket) -> None:
    with sock:
        with suppress(OSError):
            _move(reader, sock.fileno())
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)


def _move(source: int, target: int) -> None:
    """Move bytes until the source ends; raises OSError."""
    # sshd gives pipes or sockets, by how it was built; splice wants one side to be a pipe, and a
    # pipe of our own between works for both.
    out, into = os.pipe()
    try:
        while count := os.splice(source, into, _CHUNK):
            while count:
                count -= os.splice(out, target, count)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _copy(source, target)
    finally:
        os.close(out)
        os.close(into)


def _copy(source: int, target: int) -> None:
    """The same for what cannot be spliced, such as a terminal or a file."""
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]


def door_address(token: str) -> str:
    """The abstract socket of the agent with the token."""
    return f"\0phaul-memory-{token}"


def is_ours(sock: socket.socket) -> bool:
    """Whether the same user is at the other end."""
    return peer_uid(sock) == os.geteuid()
