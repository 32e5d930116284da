"""The agent's own directory: all that a migration leaves on the destination's disk while it runs.

Used on the destination, from the agent's start to its end.  It is `BASE/NAME`, 0700, locked while
its agent lives.  What a killed agent left is removed by the next one, unless a process may have to
be restored from it.
"""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Final

from phaul.errors import WorkDirError

__all__ = ["BASE", "Incoming", "base_directory"]

BASE: Final = Path("/var/lib/phaul/incoming")
_KEEP: Final = "KEEP"


def base_directory() -> Path:
    """Where agents have their directories: `$PHAUL_AGENT_DIR`, or BASE."""
    return Path(os.environ.get("PHAUL_AGENT_DIR") or BASE)


class Incoming:
    """The directory of one agent; `path` is where it is, `images` where the images are going to be.

    Raises WorkDirError if it cannot be made, or if others could write where it is.
    """

    def __init__(self, base: Path, name: str, host: str = "") -> None:
        self._kept = False
        self.path = base / f"{name}-{os.urandom(4).hex()}"
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_ours(base, host)
            _remove_stale(base)
            self.path.mkdir(mode=0o700)
            self._lock = _lock(self.path)
        except OSError as error:
            raise WorkDirError(
                f"the agent's directory {self.path} cannot be made: {error.strerror}",
                host=host,
                remedy="make room there, or name another one: $PHAUL_AGENT_DIR, --directory",
            ) from error
        self.images = self.path / "images"

    def keep(self, why: str) -> None:
        """Leave the directory behind: a process may have to be restored from it."""
        self._kept = True
        with contextlib.suppress(OSError):
            (self.path / _KEEP).write_text(f"{time.strftime('%FT%TZ', time.gmtime())} {why}\n")

    def close(self) -> None:
        """Remove it, unless it is kept, or has a log that an error names.  May be called again."""
        if self._lock < 0:
            return
        if not self._kept:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def _require_ours(base: Path, host: str) -> None:
    found = base.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise WorkDirError(
            f"others than this user may write to {base}",
            host=host,
            remedy=f"chown it, and chmod 0700 {base}",
        )


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _remove_stale(base: Path) -> None:
    """Remove the directories of agents that were killed."""
    for path in base.iterdir():
        with contextlib.suppress(OSError):
            lock = _lock(path)
            try:
                # One that is just being made has no lock yet, but it is young.
                young = time.time() - path.stat().st_mtime < 60
                if not young and not (path / _KEEP).exists():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
