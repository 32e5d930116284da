"""What a CRIU's answers about this host depend on, as a value that can be compared.

Used in preflight, on both hosts: what an `Engine` found once is still true while the identity is
the same, so that a program that makes many migrations has CRIU look at the kernel once.
"""

import os
import shutil
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Final

from phaul.incarnation import boot_id

__all__ = ["identify"]

_NAMESPACES: Final = ("mnt", "net", "pid", "user")
_SELF: Final = "/proc/thread-self"


def identify(program: Sequence[str]) -> Hashable | None:
    """The identity of the CRIU that the command `program` starts, None where it cannot be told.

    It is the command, every file that a word of it names (by its real path, device, inode, size
    and time of change), the boot, and of this thread the effective capabilities, the user and the
    namespaces.  It cannot be told of a script, which may start anything.
    """
    try:
        files = [_file(word) for word in program]
        last = files[-1]
        if last is None or not _is_binary(last[0]):
            return None
        return (
            tuple(program),
            tuple(files),
            boot_id(),
            _capabilities(),
            os.geteuid(),
            *(_stamp(f"{_SELF}/ns/{name}")[:2] for name in _NAMESPACES),
            _stamp("/")[:2],
        )
    except OSError:
        return None


def _file(word: str) -> tuple[str, tuple[int, ...]] | None:
    """The file that a word of a command names, None if it names none."""
    found = shutil.which(word) or (word if os.path.isfile(word) else None)  # noqa: PTH113
    if found is None:
        return None
    real = os.path.realpath(found)
    return real, _stamp(real)


def _stamp(path: str) -> tuple[int, ...]:
    """What changes when another file stands at `path`, or in the file; the first two name it."""
    found = os.stat(path)  # noqa: PTH116 -- asked often, in each migration
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_binary(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _capabilities() -> str:
    for line in Path(_SELF, "status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return line
    raise OSError("the kernel does not tell this thread's capabilities")
