"""Which addresses are this host's: asked of the kernel, by rtnetlink(7).

Used in preflight, on the destination.  RTM_GETADDR lists the addresses of the interfaces; one that
is not among them is asked for by RTM_GETROUTE, as the whole of 127.0.0.0/8 and networks that are
routed as local are this host's too, and broadcast addresses can be bound to.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = ["IPAddress", "local_addresses"]

IPAddress = IPv4Address | IPv6Address

_HEADER: Final = struct.Struct("=IHHII")
_IFADDR: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")

_ERROR, _DONE = 2, 3
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26
_REQUEST, _DUMP = 0x001, 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST: Final = 1
_CAN_BIND: Final = frozenset({2, 3, 5})
"""RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST."""

_TIMEOUT_S: Final = 5.0
_PACKET: Final = 1 << 16
_MOST_PACKETS: Final = 4096


def local_addresses(wanted: Iterable[IPAddress]) -> frozenset[IPAddress]:
    """Those of the addresses that a socket can be bound to here.  Raises OSError."""
    wanted = set(wanted)
    if not wanted:
        return frozenset()
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((0, 0))
        found = _interfaces(sock)
        return frozenset(
            address for address in wanted if address in found or _is_routed_here(sock, address)
        )


def _interfaces(sock: socket.socket) -> set[IPAddress]:
    found: set[IPAddress] = set()
    body = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for kind, payload in _ask(sock, _GET_ADDRESS, _REQUEST | _DUMP, body):
        if kind == _NEW_ADDRESS and (address := interface_address(payload)) is not None:
            found.add(address)
    return found


def _is_routed_here(sock: socket.socket, address: IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.packed
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed
    for kind, payload in _ask(sock, _GET_ROUTE, _REQUEST, body):
        if kind == _ERROR:
            return False  # no way leads there
        if kind == _NEW_ROUTE and len(payload) >= _ROUTE.size:
            return _ROUTE.unpack_from(payload)[7] in _CAN_BIND
    return False


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of the answer; of a dump, up to its end."""
    sequence = int.from_bytes(os.urandom(4), "little") or 1
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body)
    for _ in range(_MOST_PACKETS):
        for number, answered, payload in messages(sock.recv(_PACKET)):
            if answered != sequence:
                continue  # the rest of an answer that nobody read to its end
            if number == _ERROR and flags & _DUMP:
                code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                raise OSError(-code, f"rtnetlink: {os.strerror(abs(code))}")
            if number == _DONE:
                return
            yield number, payload
            if not flags & _DUMP:
                return


def messages(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The whole messages in a packet: type, sequence number, payload."""
    while len(packet) >= _HEADER.size:
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(packet)
        if not _HEADER.size <= length <= len(packet):
            return
        yield kind, sequence, packet[_HEADER.size : length]
        packet = packet[(length + 3) & ~3 :]


def interface_address(payload: bytes) -> IPAddress | None:
    """The address of this host in an RTM_NEWADDR message; None if there is none."""
    if len(payload) < _IFADDR.size:
        return None
    attributes = dict(_attributes(payload[_IFADDR.size :]))
    # With a peer, IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only then.
    data = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS) or b""
    return ip_address(data) if len(data) in (4, 16) else None


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
