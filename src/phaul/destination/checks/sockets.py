"""The sockets that are bound here, and whose they are.

Used in preflight, on the destination.  Read from /proc/net, see proc_net_tcp(5); nothing is bound
to try it.
"""

import os
import struct
from collections.abc import Collection, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from phaul.destination.checks.sheet import printable
from phaul.network.addresses import IPAddress

__all__ = ["LISTEN", "Bound", "bound", "owners", "parse"]

LISTEN: Final = 0x0A
_PASSING: Final = frozenset({0x03, 0x06, 0x0C})
"""SYN_RECV, TIME_WAIT and NEW_SYN_RECV: they keep nobody from a port."""

_MOST_LINKS: Final = 500_000


@dataclass(frozen=True)
class Bound:
    """A socket with a local address; `state` by the kernel's numbers, of TCP for UDP too."""

    address: IPAddress
    port: int
    state: int
    inode: int

    @property
    def listens(self) -> bool:
        """Whether it takes what comes to the port: a listener, or UDP without a peer."""
        return self.state in (LISTEN, 0x07)


def bound(proc: Path, protocol: str, ports: Collection[int]) -> list[Bound]:
    """The sockets of the protocol, IPv4 and IPv6, that are bound to one of the ports.

    Of the many connections that one address and port may have, one.  A table that is not there is
    of a protocol that is off.  Raises other OSErrors.
    """
    found: dict[tuple[IPAddress, int, bool], Bound] = {}
    for table in (protocol, f"{protocol}6"):
        with suppress(FileNotFoundError), (proc / "net" / table).open() as lines:
            for line in lines:
                one = parse(line)
                if one and one.port in ports and one.state not in _PASSING:
                    found.setdefault((one.address, one.port, one.listens), one)
    return list(found.values())


def parse(line: str) -> Bound | None:
    """The socket in a line of a table; None if there is none."""
    fields = line.split()
    if len(fields) < 10:
        return None
    address, _, port = fields[1].partition(":")
    if len(address) not in (8, 32):
        return None
    try:
        words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
        found = ip_address(struct.pack(f"={len(words)}I", *words))
        return Bound(plain(found), int(port, 16), int(fields[3], 16), int(fields[9]))
    except (ValueError, struct.error):
        return None


def plain(address: IPAddress) -> IPAddress:
    """The address; an IPv4 one that is written as IPv6 as what it is."""
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def owners(proc: Path, inodes: Collection[int]) -> dict[int, str]:
    """Who has the sockets of those inodes: "nginx (PID 812)"; those that are found."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    with closing(_links(proc)) as links:
        for process, link in links:
            if (inode := wanted.get(link)) is not None:
                found.setdefault(inode, f"{_name(process)} (PID {process.name})")
                if len(found) == len(wanted):
                    break
    return found


def _links(proc: Path) -> Generator[tuple[Path, str], None, None]:
    """What the open descriptors of all processes lead to."""
    left = _MOST_LINKS
    for name in os.listdir(proc):  # noqa: PTH208 -- a name is all that is needed
        if not name.isdecimal():
            continue
        process = proc / name
        with suppress(OSError), os.scandir(process / "fd") as descriptors:
            for descriptor in descriptors:
                if left <= 0:
                    return
                left -= 1
                with suppress(OSError):
                    yield process, os.readlink(descriptor.path)  # noqa: PTH115 -- of text


def _name(process: Path) -> str:
    with suppress(OSError), (process / "comm").open("rb") as file:
        return printable(file.read(64).decode(errors="replace").strip()) or "?"
    return "?"
