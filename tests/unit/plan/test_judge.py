"""Each thing that can be wrong with a tree is found, named, and has a remedy."""

import os
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from phaul.facts import (
    Fate,
    File,
    Inet,
    Lock,
    Mapping,
    Memory,
    Nested,
    Netlink,
    OtherSocket,
    Packet,
    Peer,
    Pipe,
    Process,
    Profile,
    Special,
    Survey,
    Terminal,
    Unix,
    Watch,
)
from phaul.plan import CHECKS, Tcp, Wishes
from phaul.plan.judge import judge
from phaul.plan.options import WantedOptions, options_for
from phaul.plan.sourcecriu import SourceCriu
from phaul.protocol.preflight import Finding, Findings, Level, Where

CRIU = SourceCriu((4, 2, 1), (6, 18))
ROOT = Process(
    pid=10,
    inner=10,
    parent=1,
    group=10,
    session=10,
    start=1,
    name="x",
    state="S",
    terminal=0,
    tracer=0,
    threads=(10,),
    namespaces={},
)
PLAIN = Survey(root=10, processes=(ROOT,), memory=Memory(resident=1 << 20, private=1 << 20))
JUDGED = {
    "files", "directories", "unlinked", "locks", "devices", "terminal", "tcp", "unix", "sockets",
    "inotify", "descriptors", "memory", "locked", "lsm", "namespaces",
}  # fmt: skip


def file(**changes: object) -> File:
    plain = File(path="/data/x", use="open", kind="file", mode=0o644, pid=10, fd=3, size=5)
    return replace(plain, **changes)  # type: ignore[arg-type]


def inet(**changes: object) -> Inet:
    plain = Inet(
        pid=10,
        fd=3,
        protocol="tcp",
        address="192.0.2.1",
        port=80,
        remote="192.0.2.9",
        remote_port=5000,
        state="ESTABLISHED",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def unix(**changes: object) -> Unix:
    plain = Unix(pid=10, fd=3, type="stream", path="", listens=False, peer=Peer.INSIDE)
    return replace(plain, **changes)  # type: ignore[arg-type]


def special(kind: str, **changes: object) -> Special:
    return replace(Special(pid=10, fd=3, kind=kind), **changes)  # type: ignore[arg-type]


def pipe(reads: bool, writes: bool, path: str = "", packets: bool = False) -> Pipe:
    return Pipe(pid=10, fd=0, path=path, reads=reads, writes=writes, packets=packets)


def netlink(groups: int, queued: int) -> Netlink:
    return Netlink(pid=10, fd=3, protocol=0, port=10, groups=groups, queued=queued)


def watch(**changes: object) -> Watch:
    plain = Watch(pid=10, fd=3, by="inotify", of="inode")
    return replace(plain, **changes)  # type: ignore[arg-type]


def tty(**changes: object) -> Terminal:
    plain = Terminal(pid=10, fd=0, path="/dev/pts/3", role="slave", index=3)
    return replace(plain, **changes)  # type: ignore[arg-type]


def findings(
    survey: Survey, wishes: Wishes | None = None, criu: SourceCriu = CRIU
) -> list[Finding]:
    found = judge(survey, wishes or Wishes(), criu)
    assert msgspec.convert(msgspec.to_builtins(found), Findings) == found
    assert all(finding.where is Where.SOURCE for finding in found)
    for finding in found:
        assert finding.what.isprintable()
        assert finding.remedy or finding.level is not Level.NO, finding
    order = [list(CHECKS).index(finding.check) for finding in found]
    assert order == sorted(order)
    for check in {finding.check for finding in found}:
        levels = [finding.level for finding in found if finding.check == check]
        assert levels == [Level.OK] or Level.OK not in levels
    return list(found)


def test_a_plain_tree_is_fine_and_each_check_says_so_once() -> None:
    found = findings(PLAIN)
    assert {finding.check for finding in found} == JUDGED
    assert [finding.level for finding in found] == [Level.OK] * len(JUDGED)


NULL, TUN, SDA = os.makedev(1, 3), os.makedev(10, 200), os.makedev(8, 0)
BAD: list[tuple[str, Level, str, dict[str, Any]]] = [
    ("files", Level.NO, "/data/x (PID 10, fd 3) was opened outside",
     {"files": (file(mounted=False),)}),
    ("files", Level.NO, "another file", {"files": (file(fate=Fate.REPLACED),)}),
    ("files", Level.WARNING, "/a\\xff", {"files": (file(path="/a\udcff"),)}),
    ("directories", Level.WARNING, "was removed",
     {"files": (file(use="cwd", kind="directory", fate=Fate.UNLINKED),)}),
    ("unlinked", Level.NO, "2.0 MiB, more than 1.0 MiB",
     {"files": (file(fate=Fate.UNLINKED, disk=2 << 20),)}),
    ("unlinked", Level.NO, "4 GiB at the most",
     {"files": (file(fate=Fate.UNLINKED, disk=5 << 30),)}),
    ("unlinked", Level.NO, "has another one", {"files": (file(fate=Fate.ELSEWHERE),)}),
    ("locks", Level.NO, "does not know", {"locks": (Lock(pid=10, fd=3, path="/x", kind="other"),)}),
    ("devices", Level.NO, "block device", {"files": (file(kind="block", device=SDA),)}),
    ("devices", Level.NO, "character device",
     {"files": (file(kind="character", device=os.makedev(254, 0)),)}),
    ("devices", Level.NO, "tunnel", {"files": (file(kind="character", device=TUN),)}),
    ("devices", Level.WARNING, "tunnel",
     {"files": (file(kind="character", device=TUN),), "own": ("net",)}),
    ("devices", Level.NO, "mapped by PID 10 at 0x1000",
     {"mappings": (Mapping(pid=10, address=0x1000, kind="device", path="/dev/dri/card0"),)}),
    ("terminal", Level.NO, "/dev/pts/3 (PID 10, fd 0)", {"terminals": (tty(),)}),
    ("terminal", Level.NO, "/dev/tty",
     {"terminals": (tty(role="current", path="/dev/tty"),),
      "processes": (replace(ROOT, session=7),)}),
    ("terminal", Level.NO, "serial", {"terminals": (tty(role="other", path="/dev/ttyS0"),)}),
    ("terminal", Level.WARNING, "destination's own",
     {"terminals": (tty(role="console", path="/dev/console"),)}),
    ("terminal", Level.WARNING, "in session 7", {"processes": (replace(ROOT, session=7),)}),
    ("tcp", Level.NO, "1 established TCP connection: 192.0.2.1:80 to 192.0.2.9:5000 (PID 10, fd 3)",
     {"inet": (inet(),)}),
    ("tcp", Level.WARNING, "3 connections wait",
     {"inet": (inet(state="LISTEN", queued=3),)}),
    ("unix", Level.NO, "/dev/log of journald, PID 20",
     {"unix": (unix(peer=Peer.OUTSIDE, peer_path="/dev/log", holder="journald, PID 20"),)}),
    ("unix", Level.NO, "type", {"unix": (unix(type="other"),)}),
    ("unix", Level.WARNING, "nothing is known", {"unix": (unix(type="other", peer=Peer.UNKNOWN),)}),
    ("sockets", Level.NO, "AF_VSOCK",
     {"others": (OtherSocket(pid=10, fd=3, protocol="AF_VSOCK"),)}),
    ("sockets", Level.NO, "group 33",
     {"netlink": (netlink(33, 0),)}),
    ("sockets", Level.NO, "unread",
     {"netlink": (netlink(1, 9),)}),
    ("sockets", Level.WARNING, "interface number 2",
     {"packet": (Packet(pid=10, fd=3, interface=2),)}),
    ("sockets", Level.WARNING, "are lost",
     {"inet": (inet(protocol="udp", state="CLOSE", queued=9),)}),
    ("inotify", Level.NO, "not to be found", {"watches": (watch(),)}),
    ("inotify", Level.WARNING, "file system",
     {"watches": (watch(by="fanotify", of="filesystem"),)}),
    ("descriptors", Level.NO, "io_uring", {"specials": (special("io_uring"),)}),
    ("descriptors", Level.NO, "userfaultfd", {"specials": (special("userfaultfd"),)}),
    ("descriptors", Level.NO, "perf event", {"specials": (special("perf_event"),)}),
    ("descriptors", Level.NO, "KVM", {"specials": (special("kvm-vm"),)}),
    ("descriptors", Level.NO, "BPF program", {"specials": (special("bpf-prog"),)}),
    ("descriptors", Level.WARNING, "BPF map", {"specials": (special("bpf-map"),)}),
    ("descriptors", Level.NO, "process 77",
     {"specials": (special("pidfd", target=77, inside=False),)}),
    ("descriptors", Level.NO, "thread",
     {"specials": (special("pidfd", target=10, thread=True),)}),
    ("descriptors", Level.NO, "net namespace",
     {"specials": (special("net", target=5, inside=False),)}),
    ("descriptors", Level.NO, "SIGPIPE",
     {"pipes": (pipe(False, True),)}),
    ("descriptors", Level.WARNING, "at its end",
     {"pipes": (pipe(True, False),)}),
    ("descriptors", Level.WARNING, "/run/fifo",
     {"pipes": (pipe(True, False, "/run/fifo"),)}),
    ("descriptors", Level.NO, "packet mode",
     {"pipes": (pipe(True, True, packets=True),)}),
    ("memory", Level.WARNING, "huge pages of 2.0 MiB",
     {"memory": Memory(huge=4 << 20, huge_page=2 << 20)}),
    ("locked", Level.WARNING, "1.0 MiB of locked", {"memory": Memory(locked=1 << 20)}),
    ("namespaces", Level.NO, "another pid namespace", {"nested": (Nested(pid=11, kind="pid"),)}),
    ("namespaces", Level.NO, "not the first process", {"own": ("pid",)}),
    ("namespaces", Level.NO, "System V",
     {"mappings": (Mapping(pid=10, address=1, kind="sysv", path="/SYSV0"),)}),
    ("namespaces", Level.WARNING, "mounts of its own", {"own": ("mnt",)}),
    ("namespaces", Level.WARNING, "network namespace", {"own": ("net",)}),
    ("namespaces", Level.WARNING, "user namespace", {"own": ("user",)}),
    ("privileges", Level.NO, "traced by process 99", {"processes": (replace(ROOT, tracer=99),)}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "level", "said", "facts"), BAD)
def test_what_is_wrong_is_found(check: str, level: Level, said: str, facts: dict[str, Any]) -> None:
    found = findings(replace(PLAIN, **facts))
    (bad,) = [f for f in found if f.check == check and f.level is level]
    assert said in bad.what
    others = {f.check for f in found if f.level is not Level.OK and f.check != check}
    assert others <= {"namespaces", "terminal"}, "one thing, one finding"


FINE: list[tuple[str, str, dict[str, Any]]] = [
    ("unlinked", "1 unlinked file", {"files": (file(fate=Fate.UNLINKED, disk=1 << 20),)}),
    ("locks", "1 file lock", {"locks": (Lock(pid=10, fd=3, path="/x", kind="FLOCK"),)}),
    ("devices", "/dev/null", {"files": (file(path="/dev/null", kind="character", device=NULL),)}),
    ("terminal", "own session", {"terminals": (tty(paired=True), tty(index=4, gone=True))}),
    ("unix", "2 unix sockets", {"unix": (unix(), unix(fd=4, peer=Peer.CLOSED))}),
    ("sockets", "3 sockets",
     {"packet": (Packet(pid=10, fd=3, interface=0),), "inet": (inet(state="LISTEN"),),
      "netlink": (netlink(32, 0),)}),
    ("inotify", "1 watch", {"watches": (watch(path="/x"),)}),
    ("descriptors", "3 other descriptors",
     {"specials": (special("eventfd"), special("net", fd=4, target=3)),
      "pipes": (pipe(True, True),)}),
    ("lsm", "apparmor p", {"profiles": (Profile(pid=10, kind="apparmor", profile="p"),)}),
    ("namespaces", "ipc, uts", {"own": ("ipc", "uts")}),
    ("namespaces", "none", {"nested": (Nested(pid=11, kind="net"),)}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "said", "facts"), FINE)
def test_what_is_right_is_said_once(check: str, said: str, facts: dict[str, Any]) -> None:
    (fine,) = [f for f in findings(replace(PLAIN, **facts)) if f.check == check]
    assert fine.level is Level.OK
    assert said in fine.what


@pytest.mark.parametrize(
    ("tcp", "level"), [(None, Level.NO), (Tcp.KEEP, Level.OK), (Tcp.CLOSE, Level.OK)]
)
def test_connections_are_the_user_s_to_decide(tcp: Tcp | None, level: Level) -> None:
    survey = replace(PLAIN, inet=(inet(), inet(fd=4)))
    (found,) = [f for f in findings(survey, Wishes(tcp=tcp)) if f.check == "tcp"]
    assert found.level is level
    if level is Level.NO:
        assert "--tcp keep" in found.remedy


def test_a_connection_to_a_process_that_stays_cannot_be_kept() -> None:
    survey = replace(PLAIN, inet=(inet(outside=True),))
    (found,) = [f for f in findings(survey, Wishes(tcp=Tcp.KEEP)) if f.check == "tcp"]
    assert found.level is Level.NO
    assert "stays here" in found.what


@pytest.mark.parametrize(
    ("version", "kernel", "level"),
    [
        ((4, 1, 1), (6, 18), Level.NO),
        ((4, 2, 0), (6, 16), Level.NO),
        ((4, 1, 1), (6, 12), Level.OK),
        ((4, 2, 1), (6, 18), Level.OK),
    ],
)
def test_a_criu_that_cannot_dump_sockets_on_its_kernel(
    version: tuple[int, int, int], kernel: tuple[int, int], level: Level
) -> None:
    survey = replace(PLAIN, inet=(inet(state="LISTEN"),))
    release = f"{kernel[0]}.{kernel[1]}.7-cloud-amd64"
    found = findings(survey, criu=SourceCriu.on(version, release))
    (sockets,) = [f for f in found if f.check == "sockets"]
    assert sockets.level is level


def test_very_many_things_are_counted() -> None:
    many = tuple(OtherSocket(pid=10, fd=fd, protocol="AF_VSOCK") for fd in range(5000))
    found = [f for f in findings(replace(PLAIN, others=many)) if f.check == "sockets"]
    assert len(found) == 21
    assert found[-1].what == "and 4980 more of the kind"


@pytest.mark.parametrize("name", ["/\x1b[2J\n\r", "/" + "x" * 5000, "/\u202e"])
def test_a_name_cannot_upset_the_terminal_it_is_shown_on(name: str) -> None:
    findings(replace(PLAIN, files=(file(path=name, mounted=False),)))


def test_options() -> None:
    assert options_for(PLAIN, Wishes()) == WantedOptions()
    away = replace(PLAIN, processes=(replace(ROOT, session=7),))
    assert options_for(away, Wishes()).shell_job
    keep, close = (options_for(PLAIN, Wishes(tcp=tcp)) for tcp in (Tcp.KEEP, Tcp.CLOSE))
    assert (keep.tcp_established, keep.tcp_close, keep.tcp_skip_in_flight) == (True, False, False)
    assert (close.tcp_established, close.tcp_close, close.tcp_skip_in_flight) == (False, True, True)
    assert options_for(replace(PLAIN, files=(file(fate=Fate.ELSEWHERE),)), Wishes()).link_remap


@pytest.mark.parametrize(
    ("disk", "allow", "limit"),
    [
        (1 << 20, {"unlinked"}, None),
        (3 << 20, set(), None),
        (3 << 20, {"unlinked"}, 6 << 20),
        (3 << 30, {"unlinked"}, (1 << 32) - 1),
    ],
)
def test_the_ghost_limit_is_raised_only_where_that_is_allowed(
    disk: int, allow: set[str], limit: int | None
) -> None:
    survey = replace(PLAIN, files=(file(fate=Fate.UNLINKED, disk=disk),))
    assert options_for(survey, Wishes(allow=frozenset(allow))).ghost_limit == limit
