"""The kernel's tables of sockets, /proc/PID/net.

Used in preflight, on the source.  Pure but for `read_tables`; proc_pid_net(5).
"""

import ipaddress
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, TypeVar

from phaul.facts import InetProtocol
from phaul.subjects.proc import Proc

__all__ = ["InetRow", "NetlinkRow", "Tables", "parse_inet", "parse_netlink", "read_tables"]

_T = TypeVar("_T")
_STATES: Final = (
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)
_INET: Final[dict[str, InetProtocol]] = {
    "tcp": "tcp",
    "tcp6": "tcp",
    "udp": "udp",
    "udp6": "udp",
    "udplite": "udplite",
    "udplite6": "udplite",
    "raw": "raw",
    "raw6": "raw",
    "icmp": "icmp",
    "icmp6": "icmp",
}


@dataclass(frozen=True)
class InetRow:
    """A line of tcp, udp, raw or icmp, or of their kin for IPv6."""

    inode: int
    protocol: InetProtocol
    address: str
    port: int
    remote: str
    remote_port: int
    state: str
    queued: int


@dataclass(frozen=True)
class NetlinkRow:
    """A line of netlink; `groups` is a mask of the first 32."""

    inode: int
    protocol: int
    port: int
    groups: int
    queued: int


@dataclass(frozen=True)
class Tables:
    """The sockets of one network namespace, by inode; of a packet socket its interface's index."""

    inet: dict[int, InetRow] = field(default_factory=dict)
    netlink: dict[int, NetlinkRow] = field(default_factory=dict)
    packet: dict[int, int] = field(default_factory=dict)

    @cached_property
    def connections(self) -> dict[tuple[str, str, int, str, int], int]:
        """The inodes of connected sockets by protocol, own end, other end."""
        return {
            (row.protocol, row.address, row.port, row.remote, row.remote_port): row.inode
            for row in self.inet.values()
            if row.state == "ESTABLISHED"
        }


def _rows(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.split("\n")[1:]:
        words = line.split()
        if len(words) >= fields:
            yield words


def _each(read: Callable[[list[str]], _T], text: str, fields: int) -> Iterator[_T]:
    """What can be read of a table; a line that is not as it should be is passed over."""
    for words in _rows(text, fields):
        try:
            yield read(words)
        except ValueError:
            continue


def parse_inet(text: str, protocol: InetProtocol) -> list[InetRow]:
    """Read one of the inet tables."""

    def row(words: list[str]) -> InetRow:
        address, port = _endpoint(words[1])
        remote, remote_port = _endpoint(words[2])
        state = int(words[3], 16)
        return InetRow(
            inode=int(words[9]),
            protocol=protocol,
            address=address,
            port=port,
            remote=remote,
            remote_port=remote_port,
            state=_STATES[state] if 0 <= state < len(_STATES) else "?",
            queued=int(words[4].partition(":")[2], 16),
        )

    return list(_each(row, text, 10))


def _endpoint(text: str) -> tuple[str, int]:
    """Address and port: "0100007F:1F90"; an address is 32-bit words in the host's own order."""
    address, _, port = text.partition(":")
    raw = bytes.fromhex(address)
    if len(raw) not in (4, 16):
        raise ValueError(text)
    words = (raw[at : at + 4] for at in range(0, len(raw), 4))
    ordered = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    number = int(port, 16)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    found = ipaddress.ip_address(ordered)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), number


def parse_netlink(text: str) -> list[NetlinkRow]:
    """Read the netlink table; the kernel's own sockets, which have no port, are in it too."""

    def row(words: list[str]) -> NetlinkRow:
        return NetlinkRow(
            inode=int(words[9]),
            protocol=int(words[1]),
            port=int(words[2]),
            groups=int(words[3], 16),
            queued=int(words[4]),
        )

    return list(_each(row, text, 10))


def parse_packet(text: str) -> dict[int, int]:
    """Read the packet table: interface by inode."""
    return dict(_each(lambda words: (int(words[8]), int(words[4])), text, 9))


def read_tables(pid: int, proc: Proc) -> Tables:
    """The tables of the network namespace that a process is in; empty if it is gone."""
    inet: dict[int, InetRow] = {}
    for name, protocol in _INET.items():
        for row in parse_inet(proc.text(pid, "net", name) or "", protocol):
            if row.inode:
                inet[row.inode] = row
    return Tables(
        inet=inet,
        netlink={row.inode: row for row in parse_netlink(proc.text(pid, "net", "netlink") or "")},
        packet=parse_packet(proc.text(pid, "net", "packet") or ""),
    )
