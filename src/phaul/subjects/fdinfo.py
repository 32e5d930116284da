"""What /proc/PID/fdinfo says of one descriptor.

Used in preflight, on the source.  Pure; proc_pid_fdinfo(5), and what the kernel's drivers add.
"""

import os
import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FdInfo", "Mark", "parse_fdinfo"]

_MOST_MARKS: Final = 8192
_PAIR: Final = re.compile(r"([a-z_-]+):([0-9a-f]+)")


@dataclass(frozen=True)
class Mark:
    """A watch of inotify or fanotify: the inode, its file system's device, its file handle."""

    by: Literal["inotify", "fanotify"]
    of: Literal["inode", "mount", "filesystem"]
    inode: int = 0
    device: int = 0
    mount: int = -1
    handle_type: int = 0
    handle: bytes = b""


@dataclass(frozen=True)
class FdInfo:
    """Of a descriptor.  `mount` is -1 and `tty_index` None where it is not said.

    `locks` are the kinds of the file locks held through it; `pidfd` is the process of a pidfd, -1
    for one that has ended.
    """

    flags: int = 0
    mount: int = -1
    tty_index: int | None = None
    pidfd: int | None = None
    locks: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def access(self) -> int:
        """O_RDONLY, O_WRONLY or O_RDWR."""
        return self.flags & os.O_ACCMODE


def parse_fdinfo(text: str) -> FdInfo:
    """Read an fdinfo file; lines that are not understood are passed over."""
    values: dict[str, int] = {}
    locks: list[str] = []
    marks: list[Mark] = []
    for line in text.split("\n"):
        key, _, rest = line.partition(":")
        if key == "flags":
            values[key] = _number(rest, 8, 0)
        elif key in {"mnt_id", "tty-index", "Pid"}:
            values[key] = _number(rest, 10, -1)
        elif key == "lock" and (kind := _lock(rest)):
            locks.append(kind)
        elif key.startswith(("inotify ", "fanotify ")) and (mark := _mark(line)):
            marks.append(mark)
    return FdInfo(
        flags=values.get("flags", 0),
        mount=values.get("mnt_id", -1),
        tty_index=values.get("tty-index"),
        pidfd=values.get("Pid"),
        locks=tuple(locks),
        marks=tuple(marks[:_MOST_MARKS]),
    )


def _number(text: str, base: int, default: int) -> int:
    try:
        return int(text[:24], base)
    except ValueError:
        return default


def _lock(text: str) -> str:
    """The kind of a lock: "1: FLOCK  ADVISORY  WRITE 4242 fe:00:1234 0 EOF"."""
    words = text.split()
    return words[1] if len(words) >= 8 else ""


def _mark(line: str) -> Mark | None:
    by: Literal["inotify", "fanotify"] = "inotify" if line.startswith("i") else "fanotify"
    values = {key: value[:512] for key, value in _PAIR.findall(line)}
    if "wd" in values or "ino" in values:
        handle = values.get("f_handle", "")
        return Mark(
            by,
            "inode",
            inode=_number(values.get("ino", ""), 16, 0),
            device=_number(values.get("sdev", ""), 16, 0),
            handle_type=_number(values.get("fhandle-type", ""), 16, 0),
            handle=bytes.fromhex(handle[: len(handle) & ~1]),
        )
    if "mnt_id" in values:
        return Mark(by, "mount", mount=_number(values["mnt_id"], 16, -1))
    if "sdev" in values:
        return Mark(by, "filesystem", device=_number(values["sdev"], 16, 0))
    return None
