"""Files, directories and devices that the tree has: are they here, and the same?

Used in preflight, on the destination.  What CRIU (4.2, `files-reg.c`) compares when it restores:
the size, unless the file was open for appending alone; the build-id, if it has seen one on the
source and sees one here; and all of `st_mode`, of directories too.  phaul does not ask for
`skip_file_rwx_check`.

The paths come from the network, and the agent is root.  So a file is reached by O_PATH, which
follows links (a library is often reached through one) and does nothing else; only a regular file
of a file system that holds files is then opened and read, for its build-id alone, of which nothing
but whether it is the same one is told.
"""

import os
import shlex
import stat
from collections.abc import Sequence
from typing import Final, NamedTuple

from phaul.criu.elf import build_id
from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.mounts import PSEUDO, read_mounts
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.protocol.preflight import FileNeed, Finding

__all__ = ["look"]

_TYPES: Final = {
    "file": (stat.S_IFREG, "a regular file"),
    "directory": (stat.S_IFDIR, "a directory"),
    "character": (stat.S_IFCHR, "a character device"),
    "block": (stat.S_IFBLK, "a block device"),
    "fifo": (stat.S_IFIFO, "a FIFO"),
    "socket": (stat.S_IFSOCK, "a socket"),
}
_NOUNS: Final = {
    "files": ("file", "the same"),
    "directories": ("directory", "there"),
    "devices": ("device", "the same"),
    "inotify": ("watched path", "there"),
    "unix": ("path of unix sockets", "there"),
    "cgroup": ("cgroup directory", "there"),
}
_BY_USE: Final = {
    "cwd": "directories",
    "root": "directories",
    "inotify": "inotify",
    "unix": "unix",
    "cgroup": "cgroup",
}
_BY_KIND: Final = {"directory": "directories", "character": "devices", "block": "devices"}
_OPENED: Final = frozenset({"exe", "mapped", "open", "cwd", "root"})
"""What CRIU opens by its path, and compares."""
_KERNELS: Final = ("/proc", "/sys")
_MOST_QUOTED: Final = 160


class _Growing(NamedTuple):
    """What may be wrong with a file that is written to: only its size at the freeze decides."""

    what: str
    remedy: str


def look(needs: Sequence[FileNeed], context: CheckContext) -> list[Finding]:
    """The findings of the checks that the needs belong to."""
    sheets = {name: Sheet(name) for name in _NOUNS}
    pseudo = _pseudo_devices(context)
    for need in needs:
        sheet = sheets[_BY_USE.get(need.use) or _BY_KIND.get(need.kind, "files")]
        try:
            wrong = _wrong(need, context, pseudo)
        except (FileNotFoundError, NotADirectoryError):
            wrong = f"{_name(need)} is not there", _how_to_get(need)
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            wrong = f"{_name(need)} cannot be looked at: {said}", "see to it that root can read it"
        if isinstance(wrong, _Growing):
            sheet.warn(*wrong)
        elif wrong:
            sheet.no(*wrong)
        else:
            sheet.right += 1
    for name, sheet in sheets.items():
        if sheet.right:
            noun, how = _NOUNS[name]
            verb = "is" if sheet.right == 1 else "are"
            sheet.ok(f"{_counted(sheet.right, noun)} {verb} {how}")
    return [finding for sheet in sheets.values() for finding in sheet.found]


def _counted(number: int, noun: str) -> str:
    head, of, tail = noun.partition(" of ")
    return count(number, head) + of + tail


def _pseudo_devices(context: CheckContext) -> frozenset[int] | None:
    """The devices of what holds no files; None if that cannot be known, and nothing is opened."""
    try:
        mounts = read_mounts(context.proc)
    except OSError:
        return None
    return frozenset(mount.device for mount in mounts if mount.kind in PSEUDO)


def _wrong(
    need: FileNeed, context: CheckContext, pseudo: frozenset[int] | None
) -> tuple[str, str] | None:
    """What is wrong and what to do about it; raises OSError, ValueError."""
    descriptor = os.open(context.path(need.path), os.O_PATH | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if wrong := _differs(need, info):
            return wrong
        # CRIU looks at a build-id only where it looks at the size.
        if need.build_id and need.size is not None and stat.S_ISREG(info.st_mode):
            if pseudo is None or info.st_dev in pseudo or _is_kernels(need.path):
                return None
            here = _build_id(descriptor)
            if here and here != need.build_id:
                return f"{_name(need)} is another build there (its build-id)", _how_to_get(need)
        return None
    finally:
        os.close(descriptor)


def _is_kernels(path: str) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in _KERNELS)


def _build_id(descriptor: int) -> str:
    # The file that was looked at, and no other that may have come in its place.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    opened = os.open(f"/proc/self/fd/{descriptor}", flags)
    try:
        return build_id(opened)
    finally:
        os.close(opened)


def _differs(need: FileNeed, info: os.stat_result) -> tuple[str, str] | None:
    kind, said = _TYPES[need.kind]
    name = _name(need)
    if stat.S_IFMT(info.st_mode) != kind:
        here = stat.S_IFMT(info.st_mode)
        found = next((words for bits, words in _TYPES.values() if bits == here), "something else")
        return f"{name} is {found} there, {said} is needed", _how_to_get(need)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and info.st_rdev != need.device:
        return f"{name} is device {_pair(info.st_rdev)} there, not {_pair(need.device)}", (
            "load the driver in the same order, or make the device file as it is on the source"
        )
    if kind == stat.S_IFREG and need.size is not None and info.st_size != need.size:
        if need.written:
            return _Growing(
                f"{name} is written to: {info.st_size} bytes there, {need.size} when it was looked "
                "at here",
                "it must be the same when the process stands still: let both hosts have one file, "
                "on storage that they share",
            )
        return f"{name} has {info.st_size} bytes there, not {need.size}", _how_to_get(need)
    mode = stat.S_IMODE(info.st_mode)
    if need.use in _OPENED and mode != need.mode:
        remedy = f"there: `chmod {need.mode:04o} {_quoted(need)}`"
        return f"{name} has mode {mode:04o} there, not {need.mode:04o}", remedy
    return None


def _pair(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _name(need: FileNeed) -> str:
    return printable(need.path)


def _quoted(need: FileNeed) -> str:
    """The path for a command; one that would be shortened or changed is left to the reader."""
    quoted = shlex.quote(need.path)
    return quoted if printable(quoted, _MOST_QUOTED) == quoted else "PATH"


def _how_to_get(need: FileNeed) -> str:
    path = _quoted(need)
    if need.kind in ("character", "block"):
        letter = "c" if need.kind == "character" else "b"
        major, minor = os.major(need.device), os.minor(need.device)
        return f"load its driver there, or there: `mknod {path} {letter} {major} {minor}`"
    if need.kind == "directory":
        return f"make it there, with what the tree uses in it: `mkdir -p {path}`"
    if need.use in ("exe", "mapped"):
        return (
            "install the same version of its package there (`dpkg -S "
            f"{path}` on the source says which), or copy it there"
        )
    return "copy it there"
