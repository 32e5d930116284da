"""What messages are made of beside plain values: versions, facts of a host, options of a restore.

Used in every phase, on both hosts.  Pure.
"""

from typing import Annotated

from msgspec import Meta

from phaul.protocol.types import HostName, Name, Part, VersionNumber, Word

__all__ = ["CriuVersion", "HostFacts", "RestoreOptions", "Versions"]


class Versions(Part, frozen=True, kw_only=True):
    """The versions of the protocol that a side speaks, both ends included."""

    oldest: VersionNumber
    newest: VersionNumber

    def __post_init__(self) -> None:
        if self.oldest > self.newest:
            raise ValueError("the oldest version is newer than the newest")


class CriuVersion(Part, frozen=True, kw_only=True):
    """A version of CRIU; it decides the page server's form on the wire."""

    major: Annotated[int, Meta(ge=0, le=999)]
    minor: Annotated[int, Meta(ge=0, le=999)]
    sublevel: Annotated[int, Meta(ge=0, le=99_999)] = 0

    def __str__(self) -> str:
        tail = f".{self.sublevel}" if self.sublevel else ""
        return f"{self.major}.{self.minor}{tail}"


class HostFacts(Part, frozen=True, kw_only=True):
    """What an agent says of its host: `mem_track` is soft-dirty, `lazy_pages` userfaultfd.

    `restore_rate` is how fast it fills fresh memory from its images, in bytes a second, measured.
    """

    host: HostName
    phaul: Name
    criu: CriuVersion
    kernel: Word
    machine: Word
    mem_track: bool
    lazy_pages: bool
    restore_rate: Annotated[int, Meta(ge=1, le=1 << 50)]


class RestoreOptions(Part, frozen=True, kw_only=True):
    """The options of CRIU that a source may set on the destination, by CRIU's names.

    Left out on purpose: all that names a file, a descriptor, a program or a namespace over there
    (a `config_file` alone could start any program), and what only a dump knows.
    """

    shell_job: bool = False
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    file_locks: bool = False
    link_remap: bool = False
    evasive_devices: bool = False
    orphan_pts_master: bool = False
    weak_sysctls: bool = False
    auto_ext_mnt: bool = False
    ext_sharing: bool = False
    ext_masters: bool = False
    timeout: Annotated[int, Meta(ge=0, le=86_400)] | None = None
    cpu_cap: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = None
    manage_cgroups_mode: Annotated[int, Meta(ge=0, le=64)] | None = None
    empty_ns: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] | None = None
    network_lock: Annotated[int, Meta(ge=1, le=3)] | None = None
    """The value of a NetworkLock."""

    def __post_init__(self) -> None:
        if self.tcp_established and self.tcp_close:
            raise ValueError("tcp_established and tcp_close exclude each other")
