"""What the source's journal says of a migration whose phaul has died.

Used on the source, by whoever lists migrations, forgets or settles them.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from phaul.errors import CutoverFailed, OutcomeUnknown, StateError
from phaul.protocol.ownership import SourceState
from phaul.storage.entry import State
from phaul.storage.journal import Journal, SourceRecord

__all__ = ["OWED", "SOCKET", "after_death", "is_open", "tidy"]

SOCKET: Final = "socket"
"""Where a running migration is steered from."""
OWED: Final = "owed.json"
"""What was changed on this host for a while, and has to be given back (`source.owed`)."""

_FOLLOWED: Final = (
    "it ran over there, and its memory followed from the phaul here that has died: lost, unless "
    "all of it had come; `phaul resolve` says which"
)


def after_death(directory: Path) -> tuple[State, int, str]:
    """Where a process is whose phaul has died, and the exit status that says so: by the journal.

    And in words, where there is more to be said than the entry does.
    """
    try:
        record = Journal(directory, SourceRecord).read()
    except StateError:
        return State.UNKNOWN, OutcomeUnknown.exit_code, ""
    match record.state if record is not None else SourceState.RUNNING:
        case SourceState.RUNNING | SourceState.FREEZING | SourceState.BACK:
            return State.FAILED, CutoverFailed.exit_code, ""
        case SourceState.THERE if record is not None and record.follows and not record.settled:
            return State.UNKNOWN, OutcomeUnknown.exit_code, _FOLLOWED
        case SourceState.THERE:
            return State.DONE, 0, ""
        case _:
            return State.UNKNOWN, OutcomeUnknown.exit_code, ""


def is_open(directory: Path) -> bool:
    """Whether something may still have to be settled on the destination, or given back here."""
    if (directory / OWED).exists():
        return True
    try:
        record = Journal(directory, SourceRecord).read()
    except StateError:
        return True
    return record is not None and not record.settled and record.state is not SourceState.RUNNING


def tidy(directory: Path) -> None:
    """Remove what a phaul that has died left of a settled migration: images, and its socket."""
    for path in (directory / SOCKET, *directory.glob("images/*/*.img")):
        with suppress(OSError):
            path.unlink()
