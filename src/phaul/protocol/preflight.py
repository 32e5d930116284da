"""What a tree needs of its new host, and what was found: the words of the preflight.

Used in preflight, on both hosts.  Pure.  The source says what the tree really uses as `Need`s, the
agent looks at its host and answers with `Finding`s.  All of it is bounded and checked like every
message: a path is absolute, and has no part that climbs.
"""

from enum import Enum
from typing import Annotated, Literal

from msgspec import Meta

from phaul.protocol.types import Bytes, Name, Part, Pid, Text, Word

__all__ = [
    "AddressNeed",
    "CgroupNeed",
    "CpuNeed",
    "FileNeed",
    "Finding",
    "Findings",
    "ImagesNeed",
    "Level",
    "LsmNeed",
    "MemoryNeed",
    "NamespaceNeed",
    "Need",
    "Needs",
    "PidsNeed",
    "ToolNeed",
    "Where",
]

# No empty part, no `.` and no `..`, no NUL; `\Z`, since `$` would let a line end pass.
AbsolutePath = Annotated[
    str, Meta(max_length=4095, pattern=r"^/(?:(?!\.{1,2}(?:/|\Z))[^/\x00]+(?:/(?!\Z)|\Z))*\Z")
]
Hex = Annotated[str, Meta(max_length=128, pattern=r"^(?:[0-9a-f]{2})*\Z")]
Address = Annotated[str, Meta(max_length=45, pattern=r"^[0-9a-fA-F:.]+\Z")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Mode = Annotated[int, Meta(ge=0, le=0o7777)]
Device = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Tag = Annotated[str, Meta(max_length=512)]


class Level(Enum):
    """How bad a finding is: `NO` refuses the migration, unless its check is allowed by name."""

    OK = "ok"
    WARNING = "warning"
    NO = "no"


class Where(Enum):
    """The host that a finding is about."""

    SOURCE = "source"
    DESTINATION = "destination"


class Finding(Part, frozen=True, kw_only=True):
    """One thing that preflight found.

    `check` is the id of the check (see `plan.catalogue`), which `--allow` names.  `what` says the
    thing itself, with its path, PID or address; `remedy` what to do about it: the option, the
    sysctl, the package.  A finding that is ok needs none.
    """

    check: Name
    level: Level
    where: Where
    what: Text
    remedy: Text = ""


class _Need(Part, frozen=True, kw_only=True, tag_field="need"):
    """The base of the needs."""


class FileNeed(_Need, frozen=True, kw_only=True, tag="file"):
    """A file that must be there as it is here.

    `use` is what for: "exe", "mapped", "open", "cwd", "root", "inotify", "unix" (the directory of a
    named socket), "cgroup".  `kind` is its type.  `mode` are the permission bits; `size` is of a
    regular file, None where it does not matter (it is written to, and CRIU does not compare it);
    `build_id` is of an ELF file, "" for others; `device` is a device's st_rdev.  `pid` uses it;
    `written` says that it has it open for writing, so that its size may change until the freeze.
    """

    path: AbsolutePath
    use: Literal["exe", "mapped", "open", "cwd", "root", "inotify", "unix", "cgroup"]
    kind: Literal["file", "directory", "character", "block", "fifo", "socket"]
    mode: Mode
    pid: Pid
    size: Bytes | None = None
    build_id: Hex = ""
    device: Device = 0
    written: bool = False


class PidsNeed(_Need, frozen=True, kw_only=True, tag="pids"):
    """PIDs that must be free there: of processes, threads, sessions and process groups.

    Not asked for a tree that brings its own PID namespace.
    """

    pids: Annotated[tuple[Pid, ...], Meta(min_length=1, max_length=16_384)]


class AddressNeed(_Need, frozen=True, kw_only=True, tag="address"):
    """A local address that a socket is bound to, in numbers; `port` 0 for none."""

    address: Address
    port: Port
    protocol: Literal["tcp", "udp", "udplite", "raw"]
    listening: bool
    pid: Pid


class MemoryNeed(_Need, frozen=True, kw_only=True, tag="memory"):
    """Memory of the tree in bytes: resident, and of that locked and in huge pages (hugetlb).

    `huge_page` is the size of one huge page, 0 if there are none.
    """

    resident: Bytes
    locked: Bytes = 0
    huge: Bytes = 0
    huge_page: Bytes = 0


class ImagesNeed(_Need, frozen=True, kw_only=True, tag="images"):
    """Space in the agent's own directory for that many bytes of images."""

    size: Bytes


class CpuNeed(_Need, frozen=True, kw_only=True, tag="cpu"):
    """What CRIU's CPUINFO_DUMP wrote on the source: its `cpuinfo.img`, whole."""

    image: Annotated[bytes, Meta(min_length=1, max_length=65_536)]
    machine: Word


class CgroupNeed(_Need, frozen=True, kw_only=True, tag="cgroup"):
    """A cgroup that the tree is in: `controllers` as in /proc/PID/cgroup ("" for version 2)."""

    controllers: Tag
    path: AbsolutePath


class LsmNeed(_Need, frozen=True, kw_only=True, tag="lsm"):
    """A security profile other than none that a task is confined by."""

    kind: Literal["apparmor", "selinux"]
    profile: Tag
    pid: Pid


class NamespaceNeed(_Need, frozen=True, kw_only=True, tag="namespace"):
    """Namespaces that the restore has to make, as the tree has its own."""

    kinds: Annotated[
        tuple[Literal["pid", "mnt", "net", "ipc", "uts", "user", "cgroup", "time"], ...],
        Meta(min_length=1, max_length=8),
    ]


class ToolNeed(_Need, frozen=True, kw_only=True, tag="tool"):
    """A program that CRIU starts in a restore, and what for."""

    name: Literal["iptables-restore", "ip6tables-restore", "tar", "ip"]
    purpose: Text


Need = (
    FileNeed
    | PidsNeed
    | AddressNeed
    | MemoryNeed
    | ImagesNeed
    | CpuNeed
    | CgroupNeed
    | LsmNeed
    | NamespaceNeed
    | ToolNeed
)
"""Anything that a tree needs of its new host."""

Needs = Annotated[tuple[Need, ...], Meta(min_length=1, max_length=1024)]
Findings = Annotated[tuple[Finding, ...], Meta(max_length=1024)]
"""So many at once; more are asked in turns."""
