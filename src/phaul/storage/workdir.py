"""The work directory of one end: a numbered images directory a round, chained by `parent` links.

Used on both hosts, from the first round to the end.  Directory N's parent is N-1, as a relative
link, so that a chain can be moved as a whole; a new chain goes on counting, without a parent.
"""

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, Self

from phaul.errors import WorkDirError

__all__ = ["ImagesDir", "WorkDir"]

# Enough to tell a full disk: what the logs and metadata of a small process take.
_PROBE_BYTES: Final = 1 << 18


@dataclass(frozen=True)
class ImagesDir:
    """One directory of images; `parent` is the relative link to the one before, None for none."""

    path: Path
    parent: str | None

    def link(self) -> None:
        """Link it to the one before, as a dump or a page server does; raises WorkDirError."""
        if self.parent is not None:
            try:
                (self.path / "parent").symlink_to(self.parent)
            except OSError as err:
                raise WorkDirError(f"{self.path} cannot be linked: {err.strerror}") from err


class WorkDir:
    """An opened work directory, locked against a second migration in it.

    Made by `open`.  `last` is the newest images directory of the chain, None before the first.
    """

    def __init__(self, path: Path, lock: int, *, made: bool) -> None:
        self.path = path
        self._lock = lock
        self._made = made
        self._next = 1 + max((int(p.name) for p in _numbered(path)), default=-1)
        self._chain: list[Path] = []
        self._logs: list[Path] = []

    @classmethod
    def open(cls, path: Path, host: str = "") -> Self:
        """Open `path`, or make it (its parent must exist).

        Raises WorkDirError, with nothing changed, if it holds images, is used by another
        migration, is not writable, or has no room.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links
        made = _make(path, host)
        try:
            lock = _lock(path, host)
        except BaseException:
            if made:
                path.rmdir()
            raise
        try:
            _refuse_images(path, host)
            _probe(path, host)
            return cls(path, lock, made=made)
        except BaseException as err:
            os.close(lock)
            if made:
                path.rmdir()
            if isinstance(err, OSError):
                raise _unusable(path, host, err) from err
            raise

    @property
    def last(self) -> Path | None:
        """The newest images directory of the chain."""
        return self._chain[-1] if self._chain else None

    def next(self) -> ImagesDir:
        """Make the directory of the next round; raises WorkDirError if it cannot be made."""
        path = self.path / str(self._next)
        try:
            path.mkdir(mode=0o700)
        except OSError as err:
            raise WorkDirError(f"{path} cannot be made: {err.strerror}") from err
        parent = f"../{self.last.name}" if self.last else None
        self._next += 1
        self._chain.append(path)
        return ImagesDir(path, parent)

    def drop_chain(self, *, keep_logs: bool = False) -> None:
        """Remove the images of the chain; the next round starts a new one, without a parent.

        With `keep_logs` CRIU's logs stay where an error says they are.
        """
        for path in reversed(self._chain):
            if keep_logs:
                for entry in path.glob("*"):
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry, ignore_errors=True)
                    elif entry.suffix != ".log":
                        entry.unlink(missing_ok=True)
                self._logs.append(path)
            else:
                _remove(path)
        self._chain = []

    def close(self, *, remove: bool = False, keep_logs: bool = False) -> None:
        """Give the directory free; with `remove`, what this object made in it is removed first.

        With `keep_logs` the logs stay, of this chain and of those that were dropped before.
        """
        if self._lock < 0:
            return
        if remove:
            self.drop_chain(keep_logs=keep_logs)
            for path in [] if keep_logs else self._logs:
                _remove(path)
            if self._made:
                with suppress(OSError):
                    self.path.rmdir()
        os.close(self._lock)
        self._lock = -1


def _make(path: Path, host: str) -> bool:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise WorkDirError(
                f"work directory {path} is not a directory", host=host, remedy="choose another"
            ) from None
        return False
    except OSError as err:
        raise _unusable(path, host, err) from err
    return True


def _lock(path: Path, host: str) -> int:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise _unusable(path, host, err) from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise WorkDirError(
            f"work directory {path} is used by another migration",
            host=host,
            remedy="wait for it, or choose another directory",
        ) from None
    return lock


def _numbered(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.name.isdecimal() and entry.is_dir()]


def _refuse_images(path: Path, host: str) -> None:
    found = [*path.glob("*.img"), *(img for sub in _numbered(path) for img in sub.glob("*.img"))]
    if found:
        raise WorkDirError(
            f"work directory {path} has images already ({found[0].relative_to(path)})",
            host=host,
            remedy="remove them if no process is to be restored from them, or choose another",
        )


def _probe(path: Path, host: str) -> None:
    try:
        with TemporaryFile(dir=path) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as err:
        raise _unusable(path, host, err) from err


def _remove(path: Path) -> None:
    """Remove a directory of images, in which there are only files, in half of rmtree's time."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                os.unlink(entry.path)  # noqa: PTH108 -- hundreds of them, while somebody waits
        path.rmdir()
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def _unusable(path: Path, host: str, err: OSError) -> WorkDirError:
    full = err.errno in (errno.ENOSPC, errno.EDQUOT)
    return WorkDirError(
        f"work directory {path} cannot be used: {err.strerror}",
        host=host,
        remedy="make room, or choose another" if full else "choose a directory you may write to",
    )
