"""sock_diag(7): what /proc does not say of unix and netlink sockets, above all the peer.

Used in preflight, on the source.  One dump request over netlink, in the network namespace asked
for, and a reader of the answers; linux/unix_diag.h, linux/netlink_diag.h.
"""

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Diag", "UnixRow", "ask", "parse_answers", "parse_groups", "parse_unix"]

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP: Final = 0x001 | 0x300
_SHOW: Final = 0x01 | 0x04 | 0x08  # UDIAG_SHOW_NAME, _PEER, _ICONS
_NDIAG_ALL: Final = 255
_NDIAG_SHOW_GROUPS: Final = 0x02
_UNIX_NAME, _UNIX_PEER, _UNIX_ICONS, _UNIX_SHUTDOWN = 0, 2, 3, 6
_NETLINK_GROUPS: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_UNIX: Final = struct.Struct("=BBBxI8x")
_NETLINK: Final = struct.Struct("=BBBBIIII8x")
_BUFFER: Final = 1 << 16
_MOST_BYTES: Final = 1 << 28
_SECONDS: Final = 10.0
_CLONE_NEWNET: Final = 0x40000000


@dataclass(frozen=True)
class UnixRow:
    """A unix socket: its type (SOCK_STREAM), its state (1 connected, 7 closed, 10 listening), name.

    `peer` is an inode, 0 for none.  `waiting` are the inodes of those that a listener has not
    accepted yet.  `closed`: shut down both ways.
    """

    inode: int
    type: int
    state: int
    name: bytes = b""
    peer: int = 0
    waiting: tuple[int, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Diag:
    """Of one network namespace: unix sockets by inode, the highest group of netlink sockets."""

    unix: dict[int, UnixRow]
    groups: dict[int, int]


def ask(namespace: str = "") -> Diag | None:
    """Ask the kernel; `namespace` is a file such as /proc/PID/ns/net, "" for the caller's own.

    None where the kernel does not say, or does not let us in there.
    """
    channel = _open(namespace)
    if channel is None:
        return None
    with channel:
        channel.settimeout(_SECONDS)
        try:
            unix = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW, 0, 0)
            rows = [row for each in _dump(channel, unix) if (row := parse_unix(each))]
        except OSError:
            return None
        try:
            netlink = struct.pack(
                "=BBHIIII", socket.AF_NETLINK, _NDIAG_ALL, 0, 0, _NDIAG_SHOW_GROUPS, 0, 0
            )
            groups = dict(pair for each in _dump(channel, netlink) if (pair := parse_groups(each)))
        except OSError:  # the module for netlink is one of its own
            groups = {}
    return Diag({row.inode: row for row in rows}, groups)


def _open(namespace: str) -> socket.socket | None:
    """A socket of that namespace.  A thread enters it, since a namespace is each thread's own."""
    found: list[socket.socket] = []

    def enter() -> None:
        try:
            if namespace:
                fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
                        return
                finally:
                    os.close(fd)
            found.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG))
        except OSError:
            return

    thread = threading.Thread(target=enter, name="phaul-netns")
    thread.start()
    thread.join()
    return found[0] if found else None


def _dump(channel: socket.socket, request: bytes) -> Iterator[bytes]:
    """The payloads of all answers; raises OSError."""
    size = _HEADER.size + len(request)
    header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    channel.sendto(header + request, (0, 0))
    total = 0
    while total < _MOST_BYTES:
        data = channel.recv(_BUFFER)
        total += len(data)
        for kind, payload in parse_answers(data):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                raise OSError(code, os.strerror(code))
            yield payload
        if not data:
            return


def parse_answers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages in what was received: type and payload; ends where it is not sound."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if not _HEADER.size <= length <= len(data) - at:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def parse_unix(payload: bytes) -> UnixRow | None:
    """Read a unix_diag_msg with its attributes; None if it is none."""
    if len(payload) < _UNIX.size:
        return None
    family, kind, state, inode = _UNIX.unpack_from(payload)
    if family != socket.AF_UNIX:
        return None
    found = _attributes(payload[_UNIX.size :])
    peer, icons = found.get(_UNIX_PEER, b""), found.get(_UNIX_ICONS, b"")
    return UnixRow(
        inode=inode,
        type=kind,
        state=state,
        name=found.get(_UNIX_NAME, b""),
        peer=struct.unpack("=I", peer)[0] if len(peer) == 4 else 0,
        waiting=struct.unpack(f"={len(icons) // 4}I", icons[: len(icons) & ~3]),
        closed=found.get(_UNIX_SHUTDOWN, b"\0")[:1] == b"\3",
    )


def parse_groups(payload: bytes) -> tuple[int, int] | None:
    """Read a netlink_diag_msg: inode, and the highest group that it is in; None if it is none."""
    if len(payload) < _NETLINK.size or payload[0] != socket.AF_NETLINK:
        return None
    inode = _NETLINK.unpack_from(payload)[7]
    mask = int.from_bytes(_attributes(payload[_NETLINK.size :]).get(_NETLINK_GROUPS, b""), "little")
    return inode, mask.bit_length()
