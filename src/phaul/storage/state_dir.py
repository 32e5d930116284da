"""The state directory: where phaul keeps, on this host, what has to be known after it has ended.

Used in every phase, on both hosts, and by the verbs that only look.  It is `$PHAUL_STATE`; without
it /var/lib/phaul for root, and `phaul` in `$XDG_STATE_HOME` (~/.local/state) for anybody else.

What lies in it is believed later, by root: so it must be this user's own, nobody else may write to
it, and nobody else may be able to put another directory in its place.
"""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from phaul.errors import StateError, UsageError

__all__ = ["StateDir", "locate", "read_whole", "sync_directory", "sync_entry", "write_whole"]

VARIABLE: Final = "PHAUL_STATE"
_SYSTEM: Final = Path("/var/lib/phaul")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def locate(environment: Mapping[str, str], uid: int) -> Path:
    """The path of the state directory of user `uid`; raises UsageError if it is no absolute one.

    As the XDG base directory specification says, a relative `$XDG_STATE_HOME` counts for none.
    """
    if named := environment.get(VARIABLE, ""):
        path = Path(named)
        if not path.is_absolute() or ".." in path.parts:
            raise UsageError(f"${VARIABLE} is {named!r}, it must be an absolute path without `..`")
        return path
    if uid == 0:
        return _SYSTEM
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        home = Path(environment.get("HOME", ""))
        if not home.is_absolute():
            raise UsageError(
                "there is no home directory for the state directory", remedy=f"set ${VARIABLE}"
            )
        base = home / ".local/state"
    return base / "phaul"


class StateDir:
    """An opened state directory, or one that is not there yet; made by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | None = None, *, make: bool = True) -> "StateDir":
        """Open `path` (by default the one of this user), and make it with 0700 if `make` is set.

        Without `make` one that is missing is as good as empty.  Raises StateError if it is a link,
        is not ours, can be written or replaced by others, or cannot be made; UsageError.
        """
        path = locate(os.environ, os.geteuid()) if path is None else path.absolute()
        if make:
            _make(path)
        if make or os.path.lexists(path):
            _require_safe(path)
        return cls(path)

    def directory(self, name: str) -> Path:
        """The directory `name` in it, made with 0700 if it is missing; raises StateError."""
        path = self.path / name
        _make(path)
        _require_own(path)
        return path


def _make(path: Path) -> None:
    missing = [path]
    while not os.path.lexists(missing[-1].parent):
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise StateError(
                f"the state directory {path} cannot be made: {error.strerror}",
                remedy=f"name another one in ${VARIABLE}",
            ) from error


def _require_own(path: Path) -> None:
    found = _lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise _unsafe(path, "is a link")
    if not stat.S_ISDIR(found.st_mode):
        raise _unsafe(path, "is not a directory")
    if found.st_uid != os.geteuid():
        raise _unsafe(path, f"belongs to user {found.st_uid}")
    if found.st_mode & _OTHERS_WRITE:
        raise _unsafe(path, "can be written by others", f"`chmod go-w {path}`, or ")


def _require_safe(path: Path) -> None:
    _require_own(path)
    for above in _above(path):
        for found in (_lstat(above), _lstat(above, follow=True)):
            if found.st_uid not in (0, os.geteuid()):
                raise _unsafe(path, f"lies in {above}, which belongs to user {found.st_uid}")
        # In a sticky directory, such as /tmp, only the owner can move what is his.
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            raise _unsafe(path, f"lies in {above}, which can be written by others")


def _above(path: Path) -> Iterator[Path]:
    """The directories above, as they are named and as they are behind links."""
    yield from dict.fromkeys((*path.parents, *path.resolve().parents))


def _lstat(path: Path, *, follow: bool = False) -> os.stat_result:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        raise StateError(
            f"the state directory {path} cannot be used: {error.strerror}",
            remedy=f"name another one in ${VARIABLE}",
        ) from error


def _unsafe(path: Path, what: str, remedy: str = "") -> StateError:
    return StateError(
        f"the state directory {path} {what}", remedy=f"{remedy}name another one in ${VARIABLE}"
    )


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader, or a crash, finds all of the old or all of the new.

    With `sync` the new one is on the disk when this returns; without, a crash of the machine may
    bring the old one back.  Its mode is 0600.  Raises OSError, with the old one left as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring what was made, renamed or removed in `path` to the disk; raises OSError."""
    _sync(path, os.O_DIRECTORY)


def sync_entry(path: Path) -> None:
    """Bring what is in a file, or in a directory, to the disk; raises OSError, for a link too."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, not through a link; raises OSError, and ValueError for others
    and for a file of more than `limit` bytes.
    """
    # O_NONBLOCK: to open a FIFO that nobody writes to would last for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a file")
        data = bytearray()
        while len(data) <= limit and (part := os.read(descriptor, limit + 1 - len(data))):
            data += part
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return bytes(data)
