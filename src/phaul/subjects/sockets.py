"""The sockets of a tree, and where the other ends of its connections are.

Used in preflight, on the source.  A descriptor's inode is looked up in the tables of the network
namespace of its process (`nettables`) and in what sock_diag says (`sockdiag`).
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from phaul.errors import SubjectError
from phaul.facts import Inet, Netlink, OtherSocket, Packet, Peer, Process, Unix
from phaul.subjects.descriptors import Descriptor
from phaul.subjects.nettables import InetRow, Tables, read_tables
from phaul.subjects.proc import Proc
from phaul.subjects.sockdiag import Diag, UnixRow, ask

__all__ = ["Sockets", "find_sockets"]

_ESTABLISHED, _LISTEN = 1, 10
_TYPES: Final[dict[int, Literal["stream", "dgram", "seqpacket"]]] = {
    1: "stream",
    2: "dgram",
    5: "seqpacket",
}
_NAME_ATTRIBUTE: Final = "system.sockprotoname"
_KNOWN: Final = frozenset(
    {"TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITE", "UDPLITEv6", "RAW", "RAWv6", "PING"}
    | {"PINGv6", "NETLINK", "PACKET", "UNIX", "UNIX-STREAM"}
)
"""The protocols that CRIU has images for, as the kernel names them."""


@dataclass
class Sockets:
    """All sockets of a tree."""

    inet: list[Inet] = field(default_factory=list)
    unix: list[Unix] = field(default_factory=list)
    netlink: list[Netlink] = field(default_factory=list)
    packet: list[Packet] = field(default_factory=list)
    others: list[OtherSocket] = field(default_factory=list)


@dataclass(frozen=True)
class _Network:
    """One network namespace."""

    tables: Tables
    diag: Diag | None


def find_sockets(
    descriptors: Iterable[Descriptor],
    tree: tuple[Process, ...],
    proc: Proc,
    diag: Callable[[str], Diag | None] = ask,
) -> Sockets:
    """Sort out the sockets; each is there once.  `diag` asks the kernel, of a namespace's file."""
    held = {each.inode[1]: each for each in descriptors if each.inode[0] == "socket"}
    found = Sockets()
    if not held:
        return found
    home = {process.pid: process.namespaces.get("net", 0) for process in tree}
    networks: dict[int, _Network] = {}
    outside: dict[int, int] = {}
    for inode, each in held.items():
        name = _protocol(each, proc)
        if name and name not in _KNOWN:
            found.others.append(OtherSocket(pid=each.pid, fd=each.fd, protocol=name))
            continue
        namespace = home.get(each.pid, 0)
        if namespace not in networks:
            networks[namespace] = _Network(
                read_tables(each.pid, proc), diag(proc.path(each.pid, "ns", "net"))
            )
        # One that is neither bound nor connected is in no table: there is no more to it.
        if not _sort(found, inode, each, networks[namespace], held, outside) and "UNIX" in name:
            found.unix.append(_unknown_unix(each))
    _name_holders(found, outside, proc)
    return found


def _protocol(each: Descriptor, proc: Proc) -> str:
    """The kernel's name of the socket's protocol; "" where it does not say."""
    try:
        value = os.getxattr(proc.path(each.pid, "fd", str(each.fd)), _NAME_ATTRIBUTE)
    except OSError:
        return ""
    return value.rstrip(b"\0").decode(errors="replace")


def _sort(
    found: Sockets,
    inode: int,
    each: Descriptor,
    network: _Network,
    held: dict[int, Descriptor],
    outside: dict[int, int],
) -> bool:
    """Look the socket up in all that is known of its network; whether it was there."""
    tables, diag = network.tables, network.diag
    if row := tables.inet.get(inode):
        found.inet.append(_inet(each, row, tables, held))
    elif link := tables.netlink.get(inode):
        group = diag.groups.get(inode, 0) if diag else 0
        found.netlink.append(
            Netlink(
                pid=each.pid,
                fd=each.fd,
                protocol=link.protocol,
                port=link.port,
                groups=max(group, link.groups.bit_length()),
                queued=link.queued,
            )
        )
    elif inode in tables.packet:
        found.packet.append(Packet(pid=each.pid, fd=each.fd, interface=tables.packet[inode]))
    elif diag and (unix := diag.unix.get(inode)):
        peer = _peer(unix, diag, held)
        if peer is Peer.OUTSIDE:
            outside[len(found.unix)] = unix.peer
        other = diag.unix.get(unix.peer)
        found.unix.append(
            Unix(
                pid=each.pid,
                fd=each.fd,
                type=_TYPES.get(unix.type, "other"),
                path=_unix_name(unix.name),
                listens=unix.state == _LISTEN,
                peer=peer,
                peer_path=_unix_name(other.name) if other and peer is Peer.OUTSIDE else "",
            )
        )
    else:
        return False
    return True


def _unknown_unix(each: Descriptor) -> Unix:
    return Unix(pid=each.pid, fd=each.fd, type="other", path="", listens=False, peer=Peer.UNKNOWN)


def _inet(each: Descriptor, row: InetRow, tables: Tables, held: dict[int, Descriptor]) -> Inet:
    there = (row.protocol, row.remote, row.remote_port, row.address, row.port)
    other = tables.connections.get(there) if row.state == "ESTABLISHED" else None
    outside = other is not None and other not in held
    return Inet(
        pid=each.pid,
        fd=each.fd,
        protocol=row.protocol,
        address=row.address,
        port=row.port,
        remote=row.remote,
        remote_port=row.remote_port,
        state=row.state,
        queued=row.queued,
        outside=outside,
    )


def _peer(row: UnixRow, diag: Diag, held: dict[int, Descriptor]) -> Peer:
    """Where the other end is; as CRIU looks for it (its `sk-unix.c`)."""
    if row.peer:
        return Peer.INSIDE if row.peer in held else Peer.OUTSIDE
    if row.state != _ESTABLISHED or row.type == 2:
        return Peer.NONE
    for other in diag.unix.values():
        if row.inode in other.waiting:
            return Peer.WAITING if other.inode in held else Peer.OUTSIDE
    return Peer.CLOSED


def _unix_name(name: bytes) -> str:
    """The path of a named socket, "@..." of an abstract one, "" of one without a name."""
    if name[:1] == b"\0":
        return "@" + name[1:].decode(errors="replace")
    return os.fsdecode(name.split(b"\0")[0])


def _name_holders(found: Sockets, outside: dict[int, int], proc: Proc) -> None:
    """Say which processes have the outside ends: for that all of /proc is looked through once."""
    wanted = {inode for inode in outside.values() if inode}
    holders: dict[int, str] = {}
    for pid in proc.pids() if wanted else ():
        try:
            inodes = {
                _socket_inode(proc.link(pid, "fd", str(fd))) for fd in proc.numbers(pid, "fd")
            }
        except SubjectError:  # not ours to look at
            continue
        if here := wanted & inodes:
            stat = proc.process(pid)
            holders |= dict.fromkeys(here, f"{stat.name}, PID {pid}" if stat else f"PID {pid}")
            wanted -= here
            if not wanted:
                break
    for at, inode in outside.items():
        found.unix[at] = replace(found.unix[at], holder=holders.get(inode, ""))


def _socket_inode(link: str | None) -> int:
    number = (link or "").removeprefix("socket:[").removesuffix("]")
    return int(number) if number.isdecimal() else 0
