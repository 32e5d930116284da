"""What a tree watches with inotify and fanotify, found again by its file handle.

Used in preflight, on the source.  The kernel says the inode, the device and a file handle alone; a
restore needs a path.  CRIU (its `fsnotify.c`) opens the handle on each mount of that device, asks
the path of what it got, and looks whether that path leads to the same inode.  So is it done here.
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from phaul.facts import Process, Watch
from phaul.subjects.descriptors import Descriptor
from phaul.subjects.fdinfo import Mark
from phaul.subjects.mounts import Mount, read_mounts
from phaul.subjects.proc import Proc

__all__ = ["find_watches"]

_MINOR_BITS: Final = 20
"""Of a device number within the kernel, which fdinfo has."""
_MOST_HANDLE: Final = 128


def find_watches(
    descriptors: Iterable[Descriptor], tree: tuple[Process, ...], proc: Proc, *, shared_mounts: bool
) -> Iterator[Watch]:
    """The watches of all descriptors; those of one inode once."""
    mounts: dict[int, list[Mount]] = {}
    home = {process.pid: process.namespaces.get("mnt", 0) for process in tree}
    seen: set[tuple[object, ...]] = set()
    for each in descriptors:
        for mark in each.info.marks:
            key = (home.get(each.pid, 0), mark.by, mark.of, mark.device, mark.inode, mark.mount)
            if key in seen:
                continue
            seen.add(key)
            namespace = home.get(each.pid, 0)
            if namespace not in mounts:
                mounts[namespace] = read_mounts(each.pid, proc)
            view = mounts[namespace]
            root = proc.path("self" if shared_mounts else each.pid, "root")
            yield Watch(
                pid=each.pid, fd=each.fd, by=mark.by, of=mark.of, path=_path(mark, view, root)
            )


def _path(mark: Mark, mounts: list[Mount], root: str) -> str:
    if mark.of == "mount":
        return next((mount.point for mount in mounts if mount.id == mark.mount), "")
    if mark.of == "filesystem" or not mark.handle:
        return ""
    device = (mark.device >> _MINOR_BITS, mark.device & (1 << _MINOR_BITS) - 1)
    for mount in mounts:
        if mount.device == device and (found := _open_handle(mark, root + mount.point)):
            try:
                if os.stat(root + found).st_ino == mark.inode:  # noqa: PTH116
                    return found
            except OSError:
                continue
    return ""


def _open_handle(mark: Mark, mount_point: str) -> str:
    """The path of what a handle leads to; "" where it leads nowhere, or may not be opened."""
    if len(mark.handle) > _MOST_HANDLE:
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = struct.pack("=Ii", len(mark.handle), mark.handle_type) + mark.handle
    try:
        place = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fd = libc.open_by_handle_at(place, ctypes.c_char_p(handle), os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(place)
    if fd < 0:
        return ""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    except OSError:
        return ""
    finally:
        os.close(fd)
    return path if path.startswith("/") else ""
