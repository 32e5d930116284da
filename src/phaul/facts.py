"""What a process tree really uses, as plain facts: filled in by `subjects`, judged by `plan`.

Used in preflight, on the source.  Pure: types, and what is worth telling.  PIDs are as phaul's own
PID namespace has them, sizes are bytes.  Facts name a process that has the thing; there may be
more.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

__all__ = [
    "AMPLIFIED",
    "NAMESPACE_KINDS",
    "Cgroup",
    "Fate",
    "File",
    "FileKind",
    "FileUse",
    "Inet",
    "InetProtocol",
    "Lock",
    "LockKind",
    "Mapping",
    "Memory",
    "NamespaceKind",
    "Nested",
    "Netlink",
    "OtherSocket",
    "Packet",
    "Peer",
    "Pipe",
    "Process",
    "Profile",
    "Special",
    "Survey",
    "Terminal",
    "TerminalRole",
    "Unix",
    "Watch",
    "sendable",
]

NamespaceKind = Literal["pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "time"]
NAMESPACE_KINDS: Final[tuple[NamespaceKind, ...]] = (
    "pid",
    "mnt",
    "net",
    "ipc",
    "uts",
    "user",
    "cgroup",
    "time",
)
AMPLIFIED: Final = 1.5
"""Huge pages that have less than so many times sent of what is written are not worth a word."""
_MOST_PATH: Final = 4095
FileUse = Literal["exe", "mapped", "open", "cwd", "root", "inotify", "unix"]
LockKind = Literal["POSIX", "FLOCK", "OFDLCK", "LEASE", "other"]
FileKind = Literal["file", "directory", "character", "block", "fifo", "socket"]
InetProtocol = Literal["tcp", "udp", "udplite", "raw", "icmp"]
TerminalRole = Literal["master", "slave", "current", "console", "virtual", "serial", "other"]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of the tree: proc_pid_stat(5), proc_pid_status(5).

    `inner` is its PID in its own PID namespace.  `group` and `session` are 0 where the leader is
    outside of phaul's PID namespace.  `start` is in clock ticks since boot.  `terminal` is the
    device number of its controlling terminal, `tracer` who debugs it; 0 for none.  `threads` has
    the process's own PID too.  `namespaces` are inode numbers.
    """

    pid: int
    inner: int
    parent: int
    group: int
    session: int
    start: int
    name: str
    state: str
    terminal: int
    tracer: int
    threads: tuple[int, ...]
    namespaces: dict[NamespaceKind, int]


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A namespace of a process that is another one than that of the root process."""

    pid: int
    kind: NamespaceKind


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of the whole tree, from /proc/PID/smaps.

    What several processes share counts once: `resident`, `shared_anonymous` and `files` are sums of
    each one's proportional share (Pss); huge pages are in `resident` as well.  `private` is what is
    anonymous, `transparent_huge` the part of it in transparent huge pages.
    """

    resident: int = 0
    private: int = 0
    shared_anonymous: int = 0
    files: int = 0
    swapped: int = 0
    locked: int = 0
    huge: int = 0
    huge_page: int = 0
    transparent_huge: int = 0


class Fate(Enum):
    """Whether the name of an open file still leads to it."""

    THERE = "there"
    UNLINKED = "unlinked"
    ELSEWHERE = "elsewhere"
    """The name is gone, but the file has another one (a hard link)."""
    REPLACED = "replaced"
    """Another file has its name now."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file, directory, device or fifo that the tree has mapped, open, stands in, or watches.

    Of use "unix" is the directory of a socket's name.  `fd` is None for what is no descriptor.
    `disk` is what it occupies, which is what CRIU's ghost limit is about.  `written`: it is open
    for writing.  `append_only`: it is open for appending alone, and CRIU then compares neither its
    size nor its build-id.  `mounted` is False for a file on a mount that none of the tree's mount
    namespaces has.
    """

    path: str
    use: FileUse
    kind: FileKind
    mode: int
    pid: int
    fd: int | None = None
    size: int = 0
    disk: int = 0
    device: int = 0
    build_id: str = ""
    append_only: bool = False
    written: bool = False
    fate: Fate = Fate.THERE
    mounted: bool = True


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A mapping that is not of plain memory or of a regular file; `address` is where it begins.

    "device" is that of a device file, "io" memory of a device without a file, "sysv" a System V
    shared memory segment.
    """

    pid: int
    address: int
    kind: Literal["device", "io", "sysv"]
    path: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A file lock that a process of the tree holds."""

    pid: int
    fd: int
    path: str
    kind: LockKind


@dataclass(frozen=True, kw_only=True)
class Pipe:
    """A pipe, or a fifo (`path`): which of its ends the tree has.  `packets`: opened O_DIRECT."""

    pid: int
    fd: int
    path: str
    reads: bool
    writes: bool
    packets: bool


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """An open terminal.  `paired`: its other side, the master, is in the tree too.

    `gone`: it was hung up.  `role` "current" is /dev/tty.
    """

    pid: int
    fd: int
    path: str
    role: TerminalRole
    index: int
    paired: bool = False
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Special:
    """A descriptor of an anonymous inode or of a namespace: `kind` as "eventfd", "io_uring", "net".

    `target` is a pidfd's PID (-1: that process has ended) or a namespace's inode; `inside` says
    whether that is the tree's.  `thread`: a pidfd of a thread.
    """

    pid: int
    fd: int
    kind: str
    target: int = 0
    inside: bool = True
    thread: bool = False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A watch of inotify or fanotify; `path` is "" where what is watched was not found again."""

    pid: int
    fd: int
    by: Literal["inotify", "fanotify"]
    of: Literal["inode", "mount", "filesystem"]
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class Inet:
    """An IPv4 or IPv6 socket that is bound or connected; addresses in numbers.

    `state` is as "ESTABLISHED", "LISTEN", "CLOSE".  `queued` are unread bytes, of a listener the
    connections that wait to be accepted.  `outside`: the other end is a process of this machine
    that is not in the tree.
    """

    pid: int
    fd: int
    protocol: InetProtocol
    address: str
    port: int
    remote: str
    remote_port: int
    state: str
    queued: int = 0
    outside: bool = False


class Peer(Enum):
    """Where the other end of a unix socket is."""

    NONE = "none"
    INSIDE = "inside"
    OUTSIDE = "outside"
    WAITING = "waiting"
    """Connected, but not accepted yet, by a listener of the tree."""
    CLOSED = "closed"
    UNKNOWN = "unknown"
    """The kernel's sock_diag(7) does not say."""


@dataclass(frozen=True, kw_only=True)
class Unix:
    """A unix socket; `path` is its name ("@..." an abstract one), "" for none.

    `listens`; `peer_path` and `holder` (PID and name) are of an outside peer, where known.
    """

    pid: int
    fd: int
    type: Literal["stream", "dgram", "seqpacket", "other"]
    path: str
    listens: bool
    peer: Peer
    peer_path: str = ""
    holder: str = ""


@dataclass(frozen=True, kw_only=True)
class Netlink:
    """A netlink socket; `groups` is the highest multicast group that it is in, 0 for none."""

    pid: int
    fd: int
    protocol: int
    port: int
    groups: int
    queued: int


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet socket; `interface` is the index of that which it is bound to, 0 for none."""

    pid: int
    fd: int
    interface: int


@dataclass(frozen=True, kw_only=True)
class OtherSocket:
    """A socket of another family; `protocol` is the kernel's name of it, as "AF_VSOCK"."""

    pid: int
    fd: int
    protocol: str


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """A cgroup that the tree is in; `controllers` is "" for version 2."""

    controllers: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A security profile that a process is confined by."""

    pid: int
    kind: Literal["apparmor", "selinux"]
    profile: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that was found of the tree below `root`.

    `own` are the kinds of namespaces of the root process that phaul's own process is not in.
    """

    root: int
    processes: tuple[Process, ...]
    memory: Memory
    own: tuple[NamespaceKind, ...] = ()
    nested: tuple[Nested, ...] = ()
    files: tuple[File, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    locks: tuple[Lock, ...] = ()
    pipes: tuple[Pipe, ...] = ()
    terminals: tuple[Terminal, ...] = ()
    specials: tuple[Special, ...] = ()
    watches: tuple[Watch, ...] = ()
    inet: tuple[Inet, ...] = ()
    unix: tuple[Unix, ...] = ()
    netlink: tuple[Netlink, ...] = ()
    packet: tuple[Packet, ...] = ()
    others: tuple[OtherSocket, ...] = ()
    cgroups: tuple[Cgroup, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @property
    def root_process(self) -> Process:
        """The process at the tree's top."""
        return next(p for p in self.processes if p.pid == self.root)

    @property
    def connections(self) -> tuple[Inet, ...]:
        """The TCP sockets that CRIU takes only with `tcp_established` or `tcp_close`."""
        idle = {"LISTEN", "CLOSE"}
        return tuple(s for s in self.inet if s.protocol == "tcp" and s.state not in idle)

    @property
    def joins_session(self) -> bool:
        """Whether the root process leads no session: one from outside of the tree is lost."""
        return self.root_process.session != self.root

    @property
    def outside_terminals(self) -> tuple[Terminal, ...]:
        """Terminals whose other side, or whose session, is not in the tree."""
        lost = self.joins_session
        return tuple(
            t
            for t in self.terminals
            if not t.gone
            and (
                (t.role == "slave" and not t.paired)
                or (lost and t.role in {"current", "console", "virtual"})
            )
        )


def sendable(path: str) -> bool:
    """Whether a path can be asked for: absolute, UTF-8, not longer than a message takes."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return False
    parts = path[1:].split("/") if path != "/" else []
    plain = all(part not in {"", ".", ".."} for part in parts)
    return path.startswith("/") and size <= _MOST_PATH and plain and "\0" not in path
