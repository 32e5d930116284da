"""The open descriptors of the processes of a tree, sorted by what they are of.

Used in preflight, on the source.  Files are in `files`, sockets in `sockets`, watches in `watches`.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from phaul.facts import Lock, LockKind, Pipe, Process, Special, Terminal, TerminalRole
from phaul.subjects.fdinfo import FdInfo, parse_fdinfo
from phaul.subjects.proc import Proc

__all__ = ["Descriptor", "find_locks", "find_pipes", "find_specials", "find_terminals", "read"]

_INODE: Final = re.compile(r"([a-z_]{1,32}):\[([0-9]{1,20})\]\Z")
_ANONYMOUS: Final = "anon_inode:"
_DELETED: Final = " (deleted)"
_LOCKS: Final[tuple[LockKind, ...]] = ("POSIX", "FLOCK", "OFDLCK", "LEASE")
_PIDFD_THREAD: Final = os.O_EXCL

_TTYAUX, _TTY = 5, 4
_USB_SERIAL, _LOW_DENSE_SERIAL = 188, 204
_PTY_MASTERS: Final = range(128, 136)
_PTY_SLAVES: Final = range(136, 144)
_CONSOLES: Final = range(64)


@dataclass(frozen=True)
class Descriptor:
    """A descriptor: where /proc says it leads, its status (None if it has none), its fdinfo."""

    pid: int
    fd: int
    link: str
    status: os.stat_result | None
    info: FdInfo

    @property
    def anonymous(self) -> str:
        """The kind of an anonymous inode, without brackets; "" for anything else."""
        if not self.link.startswith(_ANONYMOUS):
            return ""
        return self.link[len(_ANONYMOUS) :].strip("[]") or "?"

    @property
    def inode(self) -> tuple[str, int]:
        """The kind and the number of what has no name: ("socket", 4711); ("", 0) for the rest."""
        found = _INODE.match(self.link)
        return (found[1], int(found[2])) if found else ("", 0)

    @property
    def kind(self) -> int:
        """The type of the file, as S_IFMT; 0 for what is none."""
        return stat.S_IFMT(self.status.st_mode) if self.status else 0

    @property
    def memfd(self) -> bool:
        """Memory with a descriptor: CRIU takes it whole, and there is no file of that name."""
        return self.link.startswith("/memfd:") and self.link.endswith(_DELETED)

    @property
    def terminal(self) -> tuple[TerminalRole, int] | None:
        """What terminal it is, and its number; None if it is none."""
        if self.kind != stat.S_IFCHR or self.status is None:
            return None
        major, minor = os.major(self.status.st_rdev), os.minor(self.status.st_rdev)
        if major in _PTY_MASTERS or (major, minor) == (_TTYAUX, 2):
            index = self.info.tty_index
            return "master", -1 if index is None else index
        if major in _PTY_SLAVES:
            return "slave", minor + (major - _PTY_SLAVES.start << 8)
        if (major, minor) == (_TTYAUX, 0):
            return "current", 0
        if (major, minor) == (_TTYAUX, 1):
            return "console", 0
        if major == _TTY:
            return ("virtual" if minor in _CONSOLES else "other"), minor
        if major in {_USB_SERIAL, _LOW_DENSE_SERIAL}:
            return "serial", minor
        return None


def read(pid: int, proc: Proc) -> Iterator[Descriptor]:
    """The descriptors of a process; those that are closed meanwhile are left out."""
    for fd in proc.numbers(pid, "fd"):
        link = proc.link(pid, "fd", str(fd))
        text = proc.text(pid, "fdinfo", str(fd))
        if link is not None and text is not None:
            status = proc.stat(pid, "fd", str(fd)) if link.startswith("/") else None
            yield Descriptor(pid, fd, link, status, parse_fdinfo(text))


def find_locks(descriptors: Iterable[Descriptor]) -> Iterator[Lock]:
    """The file locks; one that several descriptors show is there once for each process."""
    seen = set()
    for each in descriptors:
        for word in each.info.locks:
            kind: LockKind = next((known for known in _LOCKS if known == word), "other")
            lock = Lock(pid=each.pid, fd=each.fd, path=each.link, kind=kind)
            if (key := (each.pid, each.link, kind)) not in seen:
                seen.add(key)
                yield lock


def find_pipes(descriptors: Iterable[Descriptor]) -> list[Pipe]:
    """Pipes and fifos, one each, with the ends that the whole tree has."""
    found: dict[tuple[str, int], Pipe] = {}
    for each in descriptors:
        named = each.kind == stat.S_IFIFO
        if not named and each.inode[0] != "pipe":
            continue
        key = (each.link, each.status.st_ino if each.status else 0)
        known = found.get(key)
        reads = each.info.access != os.O_WRONLY or (known is not None and known.reads)
        writes = each.info.access != os.O_RDONLY or (known is not None and known.writes)
        packets = bool(each.info.flags & os.O_DIRECT) or (known is not None and known.packets)
        first = known or each
        found[key] = Pipe(
            pid=first.pid,
            fd=first.fd,
            path=each.link if named else "",
            reads=reads,
            writes=writes,
            packets=packets and not named,
        )
    return list(found.values())


def find_terminals(descriptors: Iterable[Descriptor]) -> list[Terminal]:
    """Open terminals, one each."""
    found: dict[tuple[TerminalRole, int], Descriptor] = {}
    for each in descriptors:
        if what := each.terminal:
            found.setdefault(what, each)
    return [
        Terminal(
            pid=each.pid,
            fd=each.fd,
            path=each.link.removesuffix(_DELETED),
            role=role,
            index=index,
            paired=role == "slave" and ("master", index) in found,
            gone=role == "slave" and each.link.endswith(_DELETED),
        )
        for (role, index), each in found.items()
    ]


def find_specials(
    descriptors: Iterable[Descriptor], tree: tuple[Process, ...]
) -> Iterator[Special]:
    """Anonymous inodes and namespaces that are open."""
    pids = {process.pid for process in tree}
    namespaces = {inode for process in tree for inode in process.namespaces.values()}
    for each in descriptors:
        kind, inode = each.inode
        if each.anonymous == "pidfd" or kind == "pidfd":
            target = -1 if each.info.pidfd is None else each.info.pidfd
            yield Special(
                pid=each.pid,
                fd=each.fd,
                kind="pidfd",
                target=target,
                inside=target in pids or target == -1,
                thread=bool(each.info.flags & _PIDFD_THREAD),
            )
        elif each.anonymous:
            yield Special(pid=each.pid, fd=each.fd, kind=each.anonymous)
        elif kind and kind not in {"socket", "pipe"}:
            yield Special(
                pid=each.pid, fd=each.fd, kind=kind, target=inode, inside=inode in namespaces
            )
