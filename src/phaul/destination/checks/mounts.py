"""The mounts that this process sees.

Used in preflight, on the destination: which file systems lie in memory, which are none that hold
files, and where the cgroups are.  See proc_pid_mountinfo(5).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["IN_MEMORY", "PSEUDO", "Mount", "parse_mounts", "read_mounts"]

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})

PSEUDO: Final = frozenset(
    {
        *("proc", "sysfs", "debugfs", "tracefs", "securityfs", "configfs", "cgroup", "cgroup2"),
        *("bpf", "pstore", "efivarfs", "binfmt_misc", "fusectl", "mqueue", "rpc_pipefs", "nfsd"),
        *("selinuxfs", "smackfs", "devpts", "autofs", "resctrl", "functionfs", "xenfs"),
    }
)
"""File systems whose files are the kernel's: to open or read one can do something."""

_LIMIT: Final = 16 << 20
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mount: `device` as in st_dev, `root` within the file system, `point` where it is."""

    device: int
    root: str
    point: str
    kind: str
    options: frozenset[str]


def read_mounts(proc: Path) -> list[Mount]:
    """The mounts, in order; raises OSError."""
    with (proc / "self/mountinfo").open("rb") as file:
        return parse_mounts(file.read(_LIMIT).decode(errors="surrogateescape"))


def parse_mounts(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo file; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        device = fields[2].partition(":") if len(fields) >= 6 else ("", "", "")
        if not dash or len(kind) < 3 or not (device[0].isdecimal() and device[2].isdecimal()):
            continue
        number = os.makedev(int(device[0]) & 0xFFF, int(device[2]) & 0xFFFFF)
        options = frozenset(kind[2].split(","))
        found.append(Mount(number, _plain(fields[3]), _plain(fields[4]), kind[0], options))
    return found


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
