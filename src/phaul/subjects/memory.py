"""The memory of processes: their mappings, and what of it is resident, shared, locked or huge.

Used in preflight, on the source.  From /proc/PID/smaps, proc_pid_smaps(5): `smaps_rollup` costs as
much and tells neither the size of huge pages nor which mapping is a device's.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from phaul.facts import Mapping, Memory
from phaul.subjects.proc import Proc

__all__ = ["Area", "add_up", "mappings", "parse_smaps", "read_areas", "resident"]

_HEAD: Final = re.compile(
    r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([rwxsp-]{4}) ([0-9a-f]{1,16})"
    r" ([0-9a-f]{2,}):([0-9a-f]{2,}) ([0-9]{1,20})(?: +(.*))?\Z",
    re.DOTALL,
)
_VALUE: Final = re.compile(r"([A-Za-z_]+): +([0-9]{1,15}) kB\Z")
_FLAGS: Final = "VmFlags:"
_DELETED: Final = " (deleted)"
_KERNEL_OWN: Final = frozenset({"[vvar]", "[vvar_vclock]", "[vsyscall]", "[vdso]", "[uprobes]"})


@dataclass(frozen=True)
class Area:
    """One mapping.  `path` is as in maps, line ends written as \\012; `kib` are smaps' values."""

    start: int
    end: int
    permissions: str
    device: tuple[int, int]
    inode: int
    path: str
    kib: dict[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    @property
    def shared(self) -> bool:
        """MAP_SHARED."""
        return self.permissions[3] == "s"

    @property
    def sysv(self) -> bool:
        """A System V segment, which the kernel names /SYSV and its key."""
        return self.path.startswith("/SYSV") and self.path.endswith(_DELETED)

    @property
    def nameless(self) -> bool:
        """Memory that has an inode of the kernel's own, and no file: shared, memfd, hugetlb."""
        return self.path.endswith(_DELETED) and self.path.startswith(
            ("/dev/zero (", "/memfd:", "/SYSV", "/anon_hugepage (")
        )

    @property
    def of_file(self) -> bool:
        """Whether a file system's file or device is mapped."""
        return self.inode != 0 and self.path.startswith("/") and not self.nameless

    @property
    def name(self) -> str:
        """Its name in /proc/PID/map_files."""
        return f"{self.start:x}-{self.end:x}"


def parse_smaps(text: str) -> list[Area]:
    """Read maps or smaps; lines that are neither are passed over."""
    areas: list[Area] = []
    for line in text.split("\n"):
        if head := _HEAD.match(line):
            start, end, permissions, _, major, minor, inode, path = head.groups()
            device = (int(major, 16), int(minor, 16))
            areas.append(
                Area(int(start, 16), int(end, 16), permissions, device, int(inode), path or "")
            )
        elif areas and (value := _VALUE.match(line)):
            areas[-1].kib[value[1]] = int(value[2])
        elif areas and line.startswith(_FLAGS):
            flags = frozenset(line[len(_FLAGS) :].split())
            last = areas[-1]
            areas[-1] = Area(
                last.start,
                last.end,
                last.permissions,
                last.device,
                last.inode,
                last.path,
                last.kib,
                flags,
            )
    return areas


def read_areas(pid: int, proc: Proc) -> list[Area]:
    """The mappings of a process; none if it is gone or a zombie."""
    return parse_smaps(proc.text(pid, "smaps") or "")


def add_up(trees: Iterable[list[Area]]) -> Memory:
    """The memory of all processes of a tree, from their mappings."""
    total: dict[str, int] = {}

    def add(key: str, kib: int) -> None:
        total[key] = total.get(key, 0) + (kib << 10)

    for area in (area for areas in trees for area in areas):
        kib = area.kib
        pss = kib.get("Pss", 0)
        huge = kib.get("Private_Hugetlb", 0) + kib.get("Shared_Hugetlb", 0)
        add("resident", pss + huge)
        if area.shared and area.nameless:
            add("shared_anonymous", pss)
        elif area.of_file:
            add("files", pss)
        add("private", kib.get("Anonymous", 0))
        add("swapped", kib.get("SwapPss", kib.get("Swap", 0)))
        add("locked", kib.get("Locked", 0))
        add("transparent_huge", kib.get("AnonHugePages", 0))
        if huge or "ht" in area.flags:
            add("huge", huge)
            page = kib.get("KernelPageSize", 0) << 10
            total["huge_page"] = max(total.get("huge_page", 0), page)
    return Memory(**total)


def mappings(pid: int, areas: list[Area], proc: Proc) -> Iterator[Mapping]:
    """Those mappings that are of devices or System V segments.

    Memory of a device has "io" or "pf" among its VmFlags; CRIU refuses it in a private mapping.
    """
    for area in areas:
        if area.sysv:
            yield Mapping(pid=pid, address=area.start, kind="sysv", path=area.path)
        elif area.of_file:
            status = proc.stat(pid, "map_files", area.name)
            if status and _is_device(status):
                yield Mapping(pid=pid, address=area.start, kind="device", path=area.path)
        elif area.flags & {"io", "pf"} and area.path not in _KERNEL_OWN:
            yield Mapping(pid=pid, address=area.start, kind="io", path=area.path)


def _is_device(status: os.stat_result) -> bool:
    """A device other than /dev/zero, whose mapping is plain memory."""
    kind = status.st_mode & 0o170000
    zero = os.makedev(1, 5)
    return kind == 0o060000 or (kind == 0o020000 and status.st_rdev != zero)


def resident(pid: int, proc: Proc) -> int:
    """The resident memory of one process in bytes, 0 if it is gone; cheap."""
    words = (proc.text(pid, "statm") or "").split()
    if len(words) < 2 or not words[1].isdecimal():
        return 0
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE")
