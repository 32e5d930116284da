"""Room in sockets that memory goes through.

Used on both hosts.
"""

import socket
from typing import Final

__all__ = ["MEMORY", "make_room"]

MEMORY: Final = 2 << 20
"""Bytes under way on a local socket: with the 208 KiB that are usual, who sends and who receives
wake each other 5,000 times for 1 GB, and a dump of that is frozen for up to a third longer."""
_FORCE: Final = 32
"""SO_SNDBUFFORCE of include/uapi/asm-generic/socket.h: beyond the limit, for root."""


def make_room(sock: socket.socket, size: int = MEMORY) -> None:
    """Have a unix socket take so many bytes before its other end has read them."""
    for option in (socket.SO_SNDBUF, _FORCE):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
        except PermissionError:
            continue
