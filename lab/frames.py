"""Frames of the talk between host and guest agent.  Runs on the host and in the guest.

A frame is one type byte, a 4-byte big-endian length and the payload.  One connection is one
command, or one conversation about the clock:

    host   -> REQUEST  JSON {"argv", "cwd", "env", "stdin"}, or {"clock": true}
    host   -> STDIN    bytes of standard input; empty is its end
    host   -> SIGNAL   decimal number, for the command's process group
    agent  -> STDOUT, STDERR   output
    agent  -> STATUS   decimal status, 128 + N for signal N; the last frame

    host   -> ASK      what is the time?           agent -> TIME  CLOCK_REALTIME in ns
    host   -> STEP     decimal ns to step it by    agent -> TIME
"""

import socket
import struct

REQUEST, STDIN, SIGNAL = b"r", b"i", b"k"
STDOUT, STDERR, STATUS = b"o", b"e", b"x"
ASK, STEP, TIME = b"q", b"s", b"c"

PORT = 7000
MAX_PAYLOAD = 1 << 20
"""A longer one is a stray client or a lost frame boundary."""
CHUNK = 1 << 18
"""Payload of a data frame: larger ones gain nothing."""

_HEAD = struct.Struct(">cI")


class FrameError(ConnectionError):
    """What came is no frame, or half a frame."""


def send(sock: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    """Send one frame."""
    sock.sendall(_HEAD.pack(kind, len(payload)) + payload)


def receive(sock: socket.socket) -> tuple[bytes, bytes]:
    """Receive one frame.

    Returns:
        Its type and payload; an empty type when the peer closed between two frames.

    Raises:
        FrameError: it closed within a frame, or sent something else.
    """
    head = _receive_exact(sock, _HEAD.size)
    if not head:
        return b"", b""
    kind, length = _HEAD.unpack(head)
    if length > MAX_PAYLOAD:
        raise FrameError(f"a frame {kind!r} of {length} bytes: this is not the lab's agent")
    payload = _receive_exact(sock, length)
    if len(payload) < length:
        raise FrameError(f"closed within a frame {kind!r}")
    return kind, payload


def _receive_exact(sock: socket.socket, length: int) -> bytes:
    """Receive so many bytes, or none when the peer closed before the first."""
    buffer = bytearray()
    while len(buffer) < length:
        more = sock.recv(length - len(buffer))
        if not more:
            if buffer:
                raise FrameError(f"closed after {len(buffer)} of {length} bytes")
            break
        buffer += more
    return bytes(buffer)
