"""Judges the sockets of a tree.

Used in preflight, on the source.  Pure.  By CRIU's `sockets.c`, `sk-inet.c`, `sk-unix.c`,
`sk-netlink.c` and `sk-packet.c` (4.1 to 4.2):
TCP, UDP, raw and ICMP sockets are dumped, what a datagram socket has not read is lost; netlink
sockets too, if nothing is unread and no group beyond the 32nd joined; packet sockets with the
*number* of their interface; of unix sockets both ends must be in the tree; nothing else is.
"""

from collections.abc import Iterable
from typing import Final

from phaul.facts import Inet, Peer, Survey, Unix
from phaul.plan.judges.words import Verdict, count, held, shown, size
from phaul.plan.sourcecriu import SourceCriu
from phaul.plan.wishes import Tcp, Wishes
from phaul.protocol.preflight import Finding

__all__ = ["judge_sockets"]

_MOST_GROUPS: Final = 32


def judge_sockets(survey: Survey, wishes: Wishes, criu: SourceCriu) -> Iterable[Finding]:
    """Findings of tcp, unix and sockets."""
    yield from _tcp(survey, wishes)
    yield from _unix(survey)
    yield from _others(survey, criu)


def _ends(socket: Inet) -> str:
    return (
        f"{_address(socket.address, socket.port)} to {_address(socket.remote, socket.remote_port)}"
    )


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _tcp(survey: Survey, wishes: Wishes) -> Iterable[Finding]:
    verdict = Verdict("tcp")
    here = survey.connections
    if here and wishes.tcp is None:
        first, more = here[0], len(here) - 1
        verdict.no(
            f"{count(len(here), 'established TCP connection')}: {_ends(first)} ({held(first)})"
            + (f", and {more} more" if more else ""),
            "`--tcp keep` takes them along, `--tcp close` closes them",
        )
    if wishes.tcp is Tcp.KEEP:
        for socket in here:
            if socket.outside:
                verdict.no(
                    f"the connection {_ends(socket)} ({held(socket)}) is with a process of this "
                    "machine that stays here",
                    "move both as one tree, or `--tcp close`",
                )
    for socket in survey.inet:
        if socket.protocol == "tcp" and socket.state == "LISTEN" and socket.queued:
            waiting = count(socket.queued, "connection waits", "connections wait")
            fate = "refused" if wishes.tcp is Tcp.CLOSE else "in the way of the dump"
            verdict.warn(
                f"{waiting} to be accepted on {_address(socket.address, socket.port)} "
                f"({held(socket)}): if so in the cutover, {fate}",
                "have the process accept them, or hold new ones back for a moment",
            )
    if not here:
        return verdict.close("no established TCP connections")
    fate = "closed" if wishes.tcp is Tcp.CLOSE else "taken along, their address has to be there"
    return verdict.close(f"{count(len(here), 'established TCP connection')}, {fate}")


def _unix(survey: Survey) -> Iterable[Finding]:
    verdict = Verdict("unix")
    for socket in survey.unix:
        name = f"the unix socket {shown(socket.path)}".rstrip() + f" ({held(socket)})"
        if socket.peer is Peer.OUTSIDE:
            verdict.no(f"{name} is connected to {_other_end(socket)}", _unix_remedy(socket))
        elif socket.type == "other" and socket.peer is not Peer.UNKNOWN:
            verdict.no(f"{name} is of a type that CRIU cannot dump", "have the process close it")
        elif socket.peer is Peer.UNKNOWN:
            verdict.warn(
                f"of {name} nothing is known: the kernel did not answer sock_diag",
                "`modprobe unix_diag`; CRIU needs it too",
            )
    if not survey.unix:
        return verdict.close("no unix sockets")
    return verdict.close(f"{count(len(survey.unix), 'unix socket')}, none to outside of the tree")


def _other_end(socket: Unix) -> str:
    what = shown(socket.peer_path) or "a socket"
    whose = f" of {shown(socket.holder)}" if socket.holder else ""
    return f"{what}{whose}, outside of the tree"


def _unix_remedy(socket: Unix) -> str:
    if socket.peer_path in {"/dev/log", "/run/systemd/journal/dev-log"}:
        return "have the process close its log (closelog), or log to a file"
    return "have the process close it, or move a tree that holds both ends"


def _others(survey: Survey, criu: SourceCriu) -> Iterable[Finding]:
    verdict = Verdict("sockets")
    close = "have the process close it"
    if survey.inet and not criu.takes_inet:
        verdict.no(
            f"CRIU {criu.version_text} cannot dump any TCP or UDP socket on Linux "
            f"{criu.kernel_text}, and the tree has {len(survey.inet)}",
            "install CRIU 4.2.1 or newer on the source",
        )
    for other in survey.others:
        remedy = close
        if other.protocol.startswith("MPTCP"):
            remedy += "; of a Go program, start it with GODEBUG=multipathtcp=0"
        verdict.no(f"a socket of {shown(other.protocol)} ({held(other)}) has no image", remedy)
    for link in survey.netlink:
        if link.groups > _MOST_GROUPS:
            verdict.no(
                f"a netlink socket ({held(link)}) listens to group {link.groups}, and CRIU takes "
                f"groups up to {_MOST_GROUPS}",
                close,
            )
        elif link.queued:
            verdict.no(
                f"a netlink socket ({held(link)}) has {size(link.queued)} unread, with which CRIU "
                "does not dump it",
                "have the process read them, and try again",
            )
    for packet in survey.packet:
        if packet.interface and "net" not in survey.own:
            verdict.warn(
                f"a packet socket ({held(packet)}) is bound to interface number "
                f"{packet.interface}: it gets that with the same number there",
                "compare `ip link` on both machines",
            )
    for socket in survey.inet:
        if socket.protocol != "tcp" and socket.queued:
            verdict.warn(
                f"{socket.protocol} {_address(socket.address, socket.port)} ({held(socket)}) has "
                f"{size(socket.queued)} unread, which are lost",
            )
    number = len(survey.inet) + len(survey.netlink) + len(survey.packet)
    return verdict.close(f"{count(number, 'socket')} of kinds that can be dumped")
