"""Local addresses of the tree's sockets: are they here, and are the ports free?

Used in preflight, on the destination.  A connection's address is asked for alone: CRIU binds its
socket in repair mode, in which the port may be taken.  All others it binds with SO_REUSEADDR and
SO_REUSEPORT (4.2, `sk-inet.c`), and fails on a socket that takes what comes to the same port.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.destination.checks.sockets import LISTEN, Bound, bound, owners, plain
from phaul.network.addresses import IPAddress
from phaul.protocol.preflight import AddressNeed, Finding

__all__ = ["look", "overlap"]

_NONLOCAL: Final = "sys/net/ipv{}/ip_nonlocal_bind"
_WITH_PORTS: Final = ("tcp", "udp", "udplite")
_SAME_PHAUL: Final = "install the same phaul on both hosts"


def look(needs: Sequence[AddressNeed], context: CheckContext) -> list[Finding]:
    """The findings of `tcp` (connections) and `listen` (all others)."""
    sheets = {"tcp": Sheet("tcp"), "listen": Sheet("listen")}
    parsed: list[tuple[AddressNeed, IPAddress]] = []
    for need in dict.fromkeys(needs):
        try:
            parsed.append((need, plain(ip_address(need.address))))
        except ValueError:
            sheets[_check(need)].no(f"{printable(need.address)} is no address", _SAME_PHAUL)
    here = context.local(
        address for _, address in parsed if not (address.is_unspecified or address.is_multicast)
    )
    v6 = (context.proc / "net/if_inet6").exists()
    taken = _taken([need for need, _ in parsed], context)
    clashes: list[tuple[AddressNeed, Bound]] = []
    for need, address in parsed:
        sheet = sheets[_check(need)]
        if address.version == 6 and not v6:
            sheet.no(f"{_said(need)}: IPv6 is off there", "there: boot without ipv6.disable=1")
        elif not (address in here or address.is_unspecified or address.is_multicast):
            _missing(sheet, need, address, context)
        elif clash := _clash(need, address, taken):
            clashes.append((need, clash))
        else:
            sheet.right += 1
    _tell_clashes(sheets["listen"], clashes, context)
    for name, noun in (("tcp", "address of connections"), ("listen", "address")):
        if sheets[name].right:
            head, _, tail = noun.partition(" ")
            number = sheets[name].right
            words = f"{count(number, head)} {tail}".rstrip()
            what = f"{'is' if number == 1 else 'are'} there"
            sheets[name].ok(f"{words} {what}{' and free' if name == 'listen' else ''}")
    return [*sheets["tcp"].found, *sheets["listen"].found]


def _check(need: AddressNeed) -> str:
    return "tcp" if need.protocol == "tcp" and not need.listening else "listen"


def _said(need: AddressNeed) -> str:
    address = f"[{need.address}]" if ":" in need.address else need.address
    port = f":{need.port}" if need.port else ""
    return f"{need.protocol} {address}{port} of PID {need.pid}"


def _missing(sheet: Sheet, need: AddressNeed, address: IPAddress, context: CheckContext) -> None:
    length = 32 if address.version == 4 else 128
    give = f"give that host the address (`ip address add {address}/{length} dev ...`)"
    if sheet.check == "tcp":
        close = f"{give}, or let the connections go (--tcp close)"
        sheet.no(f"{_said(need)}: no interface has that address there", close)
    elif _may_bind_anything(address, context):
        sheet.warn(
            f"{_said(need)}: no interface has that address there, so nobody reaches it", give
        )
    else:
        sheet.no(f"{_said(need)}: no interface has that address there", give)


def _may_bind_anything(address: IPAddress, context: CheckContext) -> bool:
    try:
        return (context.proc / _NONLOCAL.format(address.version)).read_text().strip() == "1"
    except OSError:
        return False


def _taken(needs: Sequence[AddressNeed], context: CheckContext) -> dict[str, list[Bound]]:
    """By protocol, what is bound to a port that is needed."""
    ports: dict[str, set[int]] = {}
    for need in needs:
        if _check(need) == "listen" and need.port and need.protocol in _WITH_PORTS:
            ports.setdefault(need.protocol, set()).add(need.port)
    return {protocol: bound(context.proc, protocol, some) for protocol, some in ports.items()}


def _clash(need: AddressNeed, address: IPAddress, taken: dict[str, list[Bound]]) -> Bound | None:
    """The socket that keeps the need from its port, one that listens first."""
    if _check(need) != "listen":
        return None
    found = [
        one
        for one in taken.get(need.protocol, [])
        if one.port == need.port and overlap(address, one.address)
    ]
    return max(found, key=lambda one: one.listens, default=None)


def overlap(one: IPAddress, other: IPAddress) -> bool:
    """Whether two sockets with these addresses meet on one port.

    Of a socket on `::` /proc does not tell whether it takes IPv4 as well.  It is taken to: one that
    does not has most often a second one on `0.0.0.0` beside it.
    """
    if one.version == other.version:
        return one == other or one.is_unspecified or other.is_unspecified
    return (one if one.version == 6 else other).is_unspecified


def _tell_clashes(
    sheet: Sheet, clashes: Sequence[tuple[AddressNeed, Bound]], context: CheckContext
) -> None:
    names = owners(context.proc, {clash.inode for _, clash in clashes}) if clashes else {}
    for need, clash in clashes:
        who = names.get(clash.inode, "another process")
        if clash.listens:
            how = "is taken there by" if clash.state == LISTEN else "is bound there by"
            sheet.no(f"{_said(need)} {how} {who}", "stop it there, or give it another port")
        else:
            sheet.warn(
                f"{_said(need)} may not be free there: {who} has a connection from that port",
                "end that connection, or see to it that it is gone by the cutover",
            )
