"""The migrations of this host, running and past, one directory each in the state directory.

Used on the source: `migrate` writes its own, the other verbs read.

    migrations/ID/entry.json    how it stands; replaced as a whole at each round
    migrations/ID/journal.json  the cutover, see `phaul.storage.journal`
    migrations/ID/report.json   its report, once it is done
    migrations/ID/socket        while it runs: how it is steered from another terminal

Nothing in there is trusted to be whole: what is damaged is named, and the rest is still listed.
"""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from phaul.errors import (
    Cancelled,
    OutcomeUnknown,
    PhaulError,
    StateError,
    UsageError,
)
from phaul.incarnation import Incarnation
from phaul.protocol.types import MigrationId
from phaul.storage.aftermath import OWED, SOCKET, after_death, is_open
from phaul.storage.entry import (
    ENTRY,
    MOST_ROUNDS,
    Entry,
    HasFigures,
    RoundFigures,
    State,
    bounded,
    load,
    save,
)
from phaul.storage.state_dir import StateDir, read_whole, write_whole

__all__ = ["Damaged", "Handle", "Registry", "Scan"]

LAST: Final = "last"
"""Names the newest migration."""

_MIGRATIONS: Final = "migrations"
_REPORT: Final = "report.json"

_REPORT_LIMIT: Final = 16 << 20
_ABANDONED_S: Final = 86_400.0

# Letter, digit, letter, digit: no word comes out, and no digit or letter that looks like another.
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz"
_DIGITS: Final = "23456789"
_TRIES: Final = 32

_logger = logging.getLogger("phaul")


class Damaged(NamedTuple):
    """A migration whose entry cannot be read, and why."""

    id: str
    why: str


class Scan(NamedTuple):
    """What lies in the directory; entries with the newest first."""

    entries: tuple[Entry, ...]
    damaged: tuple[Damaged, ...]


class Handle:
    """The entry of the migration that this phaul runs; made by `Registry.begin`.

    The figures are for people: that they cannot be written, on a full disk, is logged and ends no
    migration.
    """

    def __init__(self, directory: Path, entry: Entry) -> None:
        self.directory = directory
        self.entry = entry

    @property
    def id(self) -> str:
        """The migration's id."""
        return self.entry.id

    @property
    def socket(self) -> Path:
        """Where `source.steering` listens."""
        return self.directory / SOCKET

    def update(
        self,
        *,
        state: State | None = None,
        rounds: Iterable[HasFigures] | None = None,
        source: str | None = None,
        destination: str | None = None,
        max_downtime_s: float | None = None,
        fate: str | None = None,
    ) -> None:
        """Write down what has changed; None leaves a thing as it is, `rounds` are all of them.

        It is synced each time: after a power cut, a file that was renamed over another without that
        may be an empty one.  Once the migration is over nothing changes any more.
        """
        if self.entry.over:
            return
        self._write(
            {
                "state": state,
                "rounds": None if rounds is None else _figures(rounds),
                "source": None if source is None else bounded(source, 253),
                "destination": None if destination is None else bounded(destination, 253),
                "max_downtime_s": max_downtime_s,
                "fate": None if fate is None else bounded(fate),
            }
        )

    def finish(
        self,
        outcome: bytes | PhaulError,
        *,
        fate: str = "",
        exit_code: int | None = None,
        destination_pid: int | None = None,
    ) -> None:
        """Write down the end: a report as JSON, or the error.

        An error brings its own fate and exit code, which the arguments overrule; a report's exit
        code is 0 if not given.
        """
        if self.entry.over:
            return
        if isinstance(outcome, bytes):
            self._save_report(outcome)
            state, error, code = State.DONE, "", 0
        else:
            state, code = _state_of(outcome), outcome.exit_code
            error = str(outcome).removesuffix(f"\n{outcome.fate}") if outcome.fate else str(outcome)
            fate = fate or outcome.fate
        self._write(
            {
                "state": state,
                "error": bounded(error),
                "exit_code": code if exit_code is None else exit_code,
                "fate": bounded(fate),
                "destination_pid": destination_pid,
            }
        )

    def _save_report(self, report: bytes) -> None:
        try:
            write_whole(self.directory / _REPORT, report)
        except OSError as error:
            _logger.warning("the report of %s cannot be kept: %s", self.id, error)

    def _write(self, changes: dict[str, object]) -> None:
        given = {name: value for name, value in changes.items() if value is not None}
        before = self.entry
        # Never backwards, also where the clock is set in between.
        given["updated_unix"] = max(time.time(), before.updated_unix)
        self.entry = msgspec.structs.replace(before, **given)
        try:
            save(self.directory, self.entry, sync=True)
        except OSError as error:
            _logger.warning("the state of %s cannot be written down: %s", self.id, error)


class Registry:
    """The migrations in `state_dir`."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir
        self._path = state_dir.path / _MIGRATIONS

    def begin(
        self, *, pid: int, name: str, target: str, source: str = "", max_downtime_s: float | None
    ) -> Handle:
        """Enter a new migration of process `pid`, run by this very phaul, with a fresh id.

        Raises StateError if the process or the entry cannot be written down.
        """
        process, phaul = Incarnation.of(pid), Incarnation.of(os.getpid())
        if process is None or phaul is None:
            raise StateError(f"process {pid} cannot be looked up in /proc")
        directory = self._fresh()
        now = time.time()
        entry = Entry(
            id=directory.name,
            state=State.CONNECTING,
            process=process,
            name=bounded(name, 256),
            target=bounded(target, 512),
            source=bounded(source, 253),
            started_unix=now,
            updated_unix=now,
            phaul=phaul,
            max_downtime_s=max_downtime_s,
        )
        try:
            save(directory, entry, sync=True)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise StateError(
                f"{directory} cannot be written: {error.strerror}",
                remedy="make room, or name another directory in $PHAUL_STATE",
            ) from error
        return Handle(directory, entry)

    def scan(self) -> Scan:
        """All that is there; never fails because of what one of them holds.  Raises StateError."""
        entries: list[Entry] = []
        damaged: list[Damaged] = []
        for directory in self._directories():
            try:
                entries.append(_as_it_is(directory))
            except FileNotFoundError:
                continue  # it is being made, or removed, right now
            except (OSError, ValueError) as error:
                # msgspec's errors are ValueErrors; what they quote is not ours.
                damaged.append(Damaged(directory.name, bounded(str(error), 200)))
        entries.sort(key=lambda entry: (entry.started_unix, entry.id), reverse=True)
        return Scan(tuple(entries), tuple(damaged))

    def entries(self) -> tuple[Entry, ...]:
        """The migrations, the newest first; one whose phaul has died is UNKNOWN."""
        return self.scan().entries

    def find(self, name: str = LAST) -> Entry:
        """The migration with this id, or the only one whose id begins so, or the last one.

        Raises UsageError if there is none or more than one, StateError if it is damaged.
        """
        entries, damaged = self.scan()
        if name == LAST:
            if not entries:
                raise UsageError("there is no migration on this host yet")
            return entries[0]
        found = [entry for entry in entries if entry.id == name] or [
            entry for entry in entries if name and entry.id.startswith(name)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(entry.id for entry in found)
            raise UsageError(f"{name!r} is the beginning of several migrations: {ids}")
        for broken in damaged:
            if broken.id == name:
                raise StateError(
                    f"what is written down of migration {name} is damaged", remedy=broken.why
                )
        raise UsageError(
            f"there is no migration {name!a} on this host", remedy="see `phaul list --all`"
        )

    def report(self, entry: Entry) -> bytes | None:
        """The report as JSON, None if it has none; raises StateError if it cannot be read."""
        try:
            return read_whole(self._path / entry.id / _REPORT, _REPORT_LIMIT)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateError(f"the report of {entry.id} cannot be read: {error}") from error

    def socket(self, entry: Entry) -> Path:
        """Where the phaul of a running migration listens."""
        return self._path / entry.id / SOCKET

    def directory(self, entry: Entry) -> Path:
        """A migration's own directory, where its journal is."""
        return self._path / entry.id

    def settled(
        self,
        entry: Entry,
        state: State,
        *,
        fate: str,
        exit_code: int,
        destination_pid: int | None = None,
    ) -> None:
        """Write down how a migration was settled whose phaul had died, or did not know.

        Raises StateError.
        """
        entry = msgspec.structs.replace(
            load(self.directory(entry)),
            state=state,
            fate=bounded(fate),
            exit_code=exit_code,
            destination_pid=destination_pid or entry.destination_pid,
            updated_unix=max(time.time(), entry.updated_unix),
        )
        try:
            save(self.directory(entry), entry, sync=True)
        except OSError as error:
            raise StateError(f"{entry.id} cannot be written down: {error.strerror}") from error

    def prune(self, keep: int) -> tuple[str, ...]:
        """Forget all but the newest `keep` of those that are over and settled; returns their ids.

        What still runs, and what somebody has to settle, is never forgotten.
        """
        over = [entry for entry in self.entries() if entry.disposable]
        old = [entry.id for entry in over[keep:] if not is_open(self._path / entry.id)]
        for name in old:
            shutil.rmtree(self._path / name, ignore_errors=True)
        for directory in self._directories():
            # One that was begun, or half removed, by a phaul that died at it.
            with suppress(OSError):
                age = time.time() - directory.stat().st_mtime
                if age > _ABANDONED_S and not (directory / ENTRY).exists():
                    shutil.rmtree(directory, ignore_errors=True)
        return tuple(old)

    def owing(self) -> tuple[Path, ...]:
        """The directories of migrations that have, or have left, something to be given back."""
        return tuple(path for path in self._directories() if (path / OWED).exists())

    def _directories(self) -> list[Path]:
        try:
            found = sorted(self._path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateError(f"{self._path} cannot be read: {error.strerror}") from error
        return [path for path in found if _is_id(path.name) and not path.is_symlink()]

    def _fresh(self) -> Path:
        base = self._state_dir.directory(_MIGRATIONS)
        for attempt in range(2 * _TRIES):
            # To make the directory is what takes the id: no other phaul can have it then.
            pairs = 2 if attempt < _TRIES else 4
            directory = base / "".join(
                secrets.choice(_LETTERS) + secrets.choice(_DIGITS) for _ in range(pairs)
            )
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise StateError(
                    f"{directory} cannot be made: {error.strerror}",
                    remedy="make room, or name another directory in $PHAUL_STATE",
                ) from error
            return directory
        raise StateError(f"no id is free in {base}", remedy="remove old migrations from it")


def _is_id(name: str) -> bool:
    try:
        msgspec.convert(name, MigrationId)
    except msgspec.ValidationError:
        return False
    return True


def _figures(rounds: Iterable[HasFigures]) -> tuple[RoundFigures, ...]:
    return tuple(RoundFigures.of(one) for one in rounds)[-MOST_ROUNDS:]


def _state_of(error: PhaulError) -> State:
    match error:
        case Cancelled():
            return State.CANCELLED
        case OutcomeUnknown():
            return State.UNKNOWN
        case _:
            return State.FAILED


def _as_it_is(directory: Path) -> Entry:
    """The entry in a directory as it is to be shown: with a dead phaul nothing runs."""
    entry = load(directory)
    if entry.over or entry.phaul.alive():
        return entry
    entry = load(directory)  # it may have ended well between the first look and the second
    if entry.over:
        return entry
    state, code, fate = after_death(directory)
    return msgspec.structs.replace(
        entry,
        state=state,
        fate=fate or entry.fate,
        died_in=entry.state,
        exit_code=code,
        error=f"its phaul, PID {entry.phaul.pid}, died in the state {entry.state.value!r}",
    )
