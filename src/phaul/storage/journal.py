"""The journals of the two ends: what has to be known of the cutover after a crash or a reboot.

Written on both hosts, from before the freeze to the end of a migration, read by whoever settles it.

    migrations/ID/journal.json            the source's
    incoming/ID-xxxx/journal.json         the destination's, in its agent's directory

A record is replaced as a whole.  What `phaul.protocol.ownership` wants on the disk is synced, the
file and its directory, before the write returns.  What need not be is a note beside it, `.note-`:
many file systems may, after a power cut, have a file that was renamed over another without a sync
as an empty one, and the synced record would be lost with it.  The note counts if it is whole, and
later than the record; it stays where it is, to be written anew in its place.
"""

import os
import time
from pathlib import Path
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from phaul.cgroups import LockedGroup
from phaul.errors import StateError
from phaul.incarnation import Incarnation
from phaul.protocol.messages import RestoreOptions
from phaul.protocol.ownership import DestinationState, SourceState
from phaul.protocol.types import MigrationId, Pid, Token
from phaul.storage.state_dir import read_whole, sync_directory, sync_entry, write_whole

__all__ = ["NAME", "DestinationRecord", "Journal", "SourceRecord"]

NAME: Final = "journal.json"
_VERSION: Final = 1
_MANY: Final = 1000
_PAGE: Final = 4096
_LIMIT: Final = 4 << 20
"""A tree of 16,384 processes has some 2 MiB."""

_Word = Annotated[str, Meta(max_length=256)]
_Folder = Annotated[str, Meta(pattern=r"^images/[0-9]{1,6}\Z")]


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the source stands.

    `root` is the tree's root, `tree` all that was frozen.  `groups` are the second lock, () where
    there is none.  `settled` says that the destination is known to have nothing left to settle.
    """

    version: int = _VERSION
    id: MigrationId
    key: Token
    state: SourceState
    root: Incarnation
    tree: Annotated[tuple[Incarnation, ...], Meta(max_length=16_384)] = ()
    groups: Annotated[tuple[LockedGroup, ...], Meta(max_length=16_384)] = ()
    settled: bool = False
    serial: Annotated[int, Meta(ge=0)] = 0
    written_unix: float = 0.0


class DestinationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the destination stands.

    `agent` is the phaul that has it, `root` the copy's root once it stands.  `images` is the folder
    to restore from, below the journal's own; `durable` says that it is on the disk.  `unsure` is
    set where the copy was let go and nobody saw it run.  `cage` is what has to be ended if the
    agent dies: the cgroups of the restoring CRIU and of the held copy.
    """

    version: int = _VERSION
    id: MigrationId
    key: Token
    state: DestinationState
    source: _Word
    name: _Word = ""
    pids: Annotated[tuple[Pid, ...], Meta(max_length=16_384)] = ()
    agent: Incarnation
    root: Incarnation | None = None
    pid: Pid | None = None
    images: _Folder | None = None
    options: RestoreOptions = RestoreOptions()
    durable: bool = False
    unsure: bool = False
    cage: Annotated[tuple[LockedGroup, ...], Meta(max_length=16_384)] = ()
    serial: Annotated[int, Meta(ge=0)] = 0
    written_unix: float = 0.0


R = TypeVar("R", SourceRecord, DestinationRecord)


def _stamped(record: R) -> R:
    return msgspec.structs.replace(record, serial=record.serial + 1, written_unix=time.time())


def _overwrite(path: Path, data: bytes) -> bool:
    """Write a small file anew where it is; False if there is none, or it may not be torn.

    A process that is killed has written one page as a whole, or not at all.  It takes 0.03 ms; a
    file that is renamed over it, 0.3 ms on ext4, and the process that is moved waits for it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if max(size, len(data)) > _PAGE:
            return False
        padded = data.ljust(size)  # spaces after JSON are none of its content
        return os.pwrite(descriptor, padded, 0) == len(padded)
    finally:
        os.close(descriptor)


class Journal(Generic[R]):
    """The journal in `directory`, of records of `kind`."""

    def __init__(self, directory: Path, kind: type[R]) -> None:
        self.path = directory / NAME
        self._note = directory / f".note-{NAME}"
        self._spare = directory / f".back-{NAME}"
        self._next = directory / f".next-{NAME}"
        self.laid: R | None = None
        """What `lay` has laid ready, and `put` has not put in place."""
        self._kind: type[R] = kind

    def write(self, record: R, *, sync: bool) -> R:
        """Replace the record; returns it as it was written.  Raises StateError, the old one stays.

        Without `sync` a power cut may bring the last synced one back; the end of a process does
        not.
        """
        record = _stamped(record)
        path, data = self.path if sync else self._note, msgspec.json.encode(record)
        try:
            if sync or not _overwrite(path, data):
                write_whole(path, data, sync=sync)
            if sync:
                self._next.unlink(missing_ok=True)  # what it was for is over
                self.laid = None
        except OSError as error:
            raise self._unwritten(path, error) from error
        return record

    def lay(self, record: R) -> R:
        """Lay the next record ready: it has room on the disk then.

        Returns it as it is going to be.  Raises StateError.
        """
        record = _stamped(record)
        try:
            write_whole(self._next, msgspec.json.encode(record), sync=False)
        except OSError as error:
            raise self._unwritten(self._next, error) from error
        self.laid = record
        return record

    def put(self) -> None:
        """Replace the record by what was laid ready; on the disk on return.  Raises StateError."""
        try:
            sync_entry(self._next)
            self._rename(self._next)
        except OSError as error:
            raise self._unwritten(self.path, error) from error
        self.laid = None

    def read(self) -> R | None:
        """The record, None if there is none; raises StateError if it is damaged or foreign."""
        record = self._load(self.path)
        try:
            note = self._load(self._note)
        except StateError:
            return record  # of the time before a power cut
        if note is None or (record is not None and record.serial >= note.serial):
            return record
        return note

    def _load(self, path: Path) -> R | None:
        try:
            data = read_whole(path, _LIMIT)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateError(f"the journal {path} cannot be read: {error}") from error
        try:
            record: R = msgspec.json.decode(data, type=self._kind)
        except (ValueError, RecursionError) as error:
            raise StateError(f"the journal {path} is damaged: {str(error)[:200]}") from error
        if record.version != _VERSION:
            raise StateError(f"the journal {path} has another form, {record.version}")
        return record

    def _rename(self, ready: Path) -> None:
        ready.rename(self.path)
        sync_directory(self.path.parent)

    def _unwritten(self, path: Path, error: OSError) -> StateError:
        return StateError(
            f"the journal {path} cannot be written: {error.strerror}",
            remedy="make room on its file system",
        )

    def prepare(self, record: R) -> None:
        """Lay a record ready that `fall_back` puts in place without room; raises StateError."""
        try:
            # Whatever is noted until then, this is later.
            record = msgspec.structs.replace(record, serial=record.serial + _MANY)
            write_whole(self._spare, msgspec.json.encode(record))
        except OSError as error:
            raise self._unwritten(self._spare, error) from error

    def fall_back(self) -> None:
        """Put the record of `prepare` in place; on the disk on return.  Raises StateError."""
        try:
            self._rename(self._spare)
        except OSError as error:
            raise StateError(
                f"the journal {self.path} cannot be replaced: {error.strerror}"
            ) from error

    def remove(self) -> None:
        """Forget it, also on the disk; raises StateError."""
        try:
            self._note.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        except OSError as error:
            raise StateError(
                f"the journal {self.path} cannot be removed: {error.strerror}"
            ) from error
