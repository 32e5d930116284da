"""Who has the other end of a unix socket, as the kernel knows it.

Used on both hosts, wherever a unix socket is let in.
"""

import socket
import struct
from typing import Final

__all__ = ["peer_uid"]

_PEERCRED: Final = struct.Struct("=iII")


def peer_uid(sock: socket.socket) -> int:
    """The user who connected, or who listens there: SO_PEERCRED (unix(7)); raises OSError."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    uid: int = _PEERCRED.unpack(found)[1]
    return uid
