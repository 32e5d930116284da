"""The agent's own directory: all that a migration leaves on the destination's disk while it runs.

Used on the destination, from the agent's start to its end.  It is `BASE/NAME`, 0700, locked while
its agent lives:

    journal.json    whose the process is, see `phaul.storage.journal`
    images/N/       what a round, or the final dump, has brought
    lazy/           what CRIU's lazy-pages daemon reads, while there is one
    socket          where the agent of a later connection settles it
    keeper          locked while lazily restored memory still comes from the images
    memory          where the keeper is asked, if memory follows from the source
    LOST            why a process was ended that ran here: its memory did not come

What a killed agent left is removed by the next one, unless the journal says that the process may
have to be restored from it, or that it runs and the source may not know; and unless its memory
still comes from it.  What runs is let out of its cage by the next one, or by the keeper.
"""

import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from phaul.cgroups import Cgroups
from phaul.errors import CgroupError, StateError, WorkDirError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState
from phaul.storage.journal import DestinationRecord, Journal

__all__ = [
    "BASE",
    "SOCKET",
    "Arrival",
    "Incoming",
    "Keeping",
    "arrivals",
    "base_directory",
    "is_locked",
    "keeps",
    "lost",
    "note_lost",
    "require_ours",
]

BASE: Final = Path("/var/lib/phaul/incoming")
SOCKET: Final = "socket"
_KEEP: Final = "KEEP"
_LOST: Final = "LOST"
_KEEPER: Final = "keeper"
_MOST_WORDS: Final = 2000
_AGENT_ENDS_S: Final = 10.0
_KNOWN_S: Final = 7 * 86_400.0
"""So long it is remembered that a process runs here, for a source that did not hear it."""


def base_directory() -> Path:
    """Where agents have their directories: `$PHAUL_AGENT_DIR`, or BASE."""
    return Path(os.environ.get("PHAUL_AGENT_DIR") or BASE)


class Incoming:
    """The directory of one agent, at `path`.

    Raises WorkDirError if it cannot be made, or if others could write where it is.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._stays = False

    @classmethod
    def make(cls, base: Path, name: str, host: str = "") -> Self:
        """A fresh one."""
        path = base / f"{name}-{os.urandom(4).hex()}"
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_ours(base, host)
            _remove_stale(base)
            path.mkdir(mode=0o700)
            # Waits: who only looks whether its agent lives has the lock for a moment.
            return cls(path, _lock(path, wait=True))
        except OSError as error:
            raise WorkDirError(
                f"the agent's directory {path} cannot be made: {error.strerror}",
                host=host,
                remedy="make room there, or name another one: $PHAUL_AGENT_DIR, --directory",
            ) from error

    @classmethod
    def take_over(cls, path: Path) -> Self | None:
        """One that was left; None if its agent still lives.  Raises OSError."""
        try:
            return cls(path, _lock(path))
        except BlockingIOError:
            return None

    @property
    def images(self) -> Path:
        """Where the images are going to be."""
        return self.path / "images"

    @property
    def socket(self) -> Path:
        """Where it is settled from."""
        return self.path / SOCKET

    def keep(self, why: str) -> None:
        """Leave the directory behind until somebody removes it, with a note of the reason."""
        self._stays = True
        _note(self.path, why)

    def stay(self) -> None:
        """Leave the directory behind: its journal says what for."""
        self._stays = True

    def close(self) -> None:
        """Remove it, unless it stays.  May be called again."""
        if self._lock < 0:
            return
        if not self._stays:
            shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.socket.unlink()  # nobody listens there any more
        os.close(self._lock)
        self._lock = -1


@dataclass
class Keeping:
    """The keeper's lock in the directory at `path`: what is there is needed.  A context manager."""

    path: Path
    _lock: int

    @classmethod
    def begin(cls, path: Path) -> Self:
        """Take it; raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path / _KEEPER, flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # who only looks has it for a moment
        return cls(path, lock)

    def leave(self, *, told: bool, failed: str, root: Incarnation | None = None) -> None:
        """Remove what nobody needs, when the agent has ended; another that has come does it itself.

        The journal says what is needed.  `told` if the source knows that the process runs here.  If
        the memory of one that ran `failed` to come, people decide.  `root` is of the copy whose
        memory it was: one that was restored since in its place has all of its own.
        """
        lock = self._lock_unless_given_up(root)
        if lock is None:
            return
        try:
            record = Journal(self.path, DestinationRecord).read()
            runs = record is not None and record.state is DestinationState.RUNNING
            _let_out(self.path)
            if failed and runs and _of(record, root):
                assert record is not None
                note_lost(self.path, failed, follows=record.follows)
            elif (self.path / _KEEP).exists():
                pass
            elif record is None or (runs and told):
                shutil.rmtree(self.path, ignore_errors=True)
            elif runs:
                shutil.rmtree(self.path / "images", ignore_errors=True)
        except StateError:
            pass  # nobody knows what it says
        finally:
            os.close(lock)

    def _lock_unless_given_up(self, root: Incarnation | None) -> int | None:
        """The directory's lock, when the agent has ended; None where nobody needs it any more.

        Whoever restores the process again needs to know that no keeper is there.
        """
        until = time.monotonic() + _AGENT_ENDS_S
        while time.monotonic() < until:
            try:
                return _lock(self.path)
            except BlockingIOError:
                pass
            except OSError:
                return None
            with contextlib.suppress(StateError):
                record = Journal(self.path, DestinationRecord).read()
                if record is not None and not _of(record, root):
                    return None
            time.sleep(0.01)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):
            (self.path / _KEEPER).unlink()
        os.close(self._lock)


def keeps(path: Path) -> bool:
    """Whether the keeper of a migration lives: its images may not be removed."""
    try:
        lock = os.open(path / _KEEPER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def note_lost(path: Path, failed: str, *, follows: bool) -> None:
    """Have it known that the process was ended, as its memory did not come.

    What it was when it was frozen stays, unless memory `follows`: that is nowhere any more.
    """
    with contextlib.suppress(OSError):
        (path / _LOST).write_text(failed[:_MOST_WORDS])
    if follows:
        shutil.rmtree(path / "images", ignore_errors=True)
    else:
        _note(path, f"its memory did not come, so it was ended: {failed}")


def lost(path: Path) -> str:
    """Why a process that ran here was ended, as its memory did not come; "" if it was not."""
    try:
        with (path / _LOST).open() as file:
            return file.read(_MOST_WORDS)
    except OSError:
        return ""


@dataclass(frozen=True)
class Arrival:
    """What is here of a migration that came from another machine; `living` if its agent is."""

    path: Path
    record: DestinationRecord
    living: bool


def arrivals(base: Path) -> tuple[Arrival, ...]:
    """The migrations to this host that are not over, or not settled; the newest first.

    What is damaged, or may not be read, is left out.
    """
    found = []
    with contextlib.suppress(OSError):
        for path in base.iterdir():
            with contextlib.suppress(StateError):
                record = Journal(path, DestinationRecord).read()
                if record is not None:
                    found.append(Arrival(path, record, is_locked(path)))
    return tuple(sorted(found, key=lambda one: one.record.written_unix, reverse=True))


def require_ours(base: Path, host: str) -> None:
    """Raise WorkDirError if others could write there."""
    found = base.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise WorkDirError(
            f"others than this user may write to {base}",
            host=host,
            remedy=f"chown it, and chmod 0700 {base}",
        )


def _lock(path: Path, *, wait: bool = False) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _of(record: DestinationRecord | None, root: Incarnation | None) -> bool:
    """Whether the copy with that root may be the one that a journal is about."""
    if record is None or record.state in (DestinationState.IMAGES, DestinationState.AGAIN):
        return False
    return root is None or record.root in (None, root)


def _note(path: Path, why: str) -> None:
    """Have a directory stay until somebody removes it."""
    with contextlib.suppress(OSError):
        (path / _KEEP).write_text(f"{time.strftime('%FT%TZ', time.gmtime())} {why}\n")


def _remove_stale(base: Path) -> None:
    """Remove the directories of agents that were killed, and of keepers."""
    for path in base.iterdir():
        with contextlib.suppress(OSError):
            lock = _lock(path)
            try:
                if keeps(path):
                    continue
                # One that is just being made has no lock yet, but it is young.
                young = time.time() - path.stat().st_mtime < 60
                stale = not young and not _needed(path)
                _let_out(path)
                if stale:
                    _end_caged(path)
                    shutil.rmtree(path, ignore_errors=True)
                elif _runs(path):  # of which only the journal is needed
                    shutil.rmtree(path / "images", ignore_errors=True)
                    (path / SOCKET).unlink(missing_ok=True)
            finally:
                os.close(lock)


def _let_out(path: Path) -> None:
    """Let what runs out of the cage in which its agent died; the cage is gone then.

    Its agent may have told the source, which has no reason to ask again: so this is not left to
    who settles it.
    """
    with contextlib.suppress(StateError, CgroupError):
        record = Journal(path, DestinationRecord).read()
        if record is None or record.state is not DestinationState.RUNNING or not record.cage:
            return
        cgroups = Cgroups.find()
        if cgroups is not None and any(cgroups.exists(each.group) for each in record.cage):
            from phaul.destination.cage import leave_caged  # not what each agent's start waits for

            leave_caged(record.cage)


def _end_caged(path: Path) -> None:
    """End what CRIU left in the cage of an agent that was killed while it received."""
    from phaul.destination.cage import kill_caged  # as in _let_out

    with contextlib.suppress(StateError, CgroupError):
        record = Journal(path, DestinationRecord).read()
        if record is not None and record.state.gives_up:
            kill_caged(record.cage)


def _runs(path: Path) -> bool:
    if (path / _KEEP).exists():
        return False
    try:
        record = Journal(path, DestinationRecord).read()
    except StateError:
        return False
    return record is not None and record.state is DestinationState.RUNNING


def _needed(path: Path) -> bool:
    if (path / _KEEP).exists():
        return True
    try:
        record = Journal(path, DestinationRecord).read()
    except StateError:
        return True  # nobody knows what it says
    if record is None:
        return False
    known = record.state is DestinationState.RUNNING
    return record.state.owed or (known and time.time() - record.written_unix < _KNOWN_S)


def is_locked(path: Path) -> bool:
    """Whether its agent lives, in whatever PID namespace."""
    try:
        os.close(_lock(path))
    except BlockingIOError:
        return True
    return False
