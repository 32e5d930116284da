"""What is written down of one migration: its state, its figures, and who runs it.

Written on the source throughout a migration, read by the verbs at any time.  Times are seconds,
memory is bytes; `*_unix` are seconds since the epoch.
"""

from enum import Enum
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from phaul.incarnation import Incarnation
from phaul.protocol.types import MigrationId, Pid, Text
from phaul.storage.state_dir import read_whole, write_whole

__all__ = [
    "ENTRY",
    "VERSION",
    "Entry",
    "HasFigures",
    "RoundFigures",
    "State",
    "bounded",
    "load",
    "save",
]

VERSION: Final = 1
"""The version of the file's form; a newer one is not read."""

ENTRY: Final = "entry.json"
_LIMIT: Final = 1 << 20

MOST_ROUNDS: Final = 1000
"""So many of the newest rounds are kept."""

_MOST_TEXT: Final = 4096

_Host = Annotated[str, Meta(max_length=253)]


class State(Enum):
    """Where a migration stands, in the order of its way; UNKNOWN also where its phaul has died."""

    CONNECTING = "connecting"
    PREFLIGHT = "preflight"
    PRE_COPY = "pre-copy"
    CUTOVER = "cutover"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def over(self) -> bool:
        """Whether nothing more is to come by itself."""
        return self in _OVER

    @property
    def settled(self) -> bool:
        """Whether it is over, and known where the process is."""
        return self.over and self is not State.UNKNOWN


_OVER: Final = {State.DONE, State.FAILED, State.CANCELLED, State.UNKNOWN}


class HasFigures(Protocol):
    """What has the figures of a round: a `report.Round`."""

    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def sent_bytes(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def frozen_s(self) -> float: ...  # noqa: D102
    @property
    def dirty_rate(self) -> float | None: ...  # noqa: D102
    @property
    def predicted_downtime_s(self) -> float | None: ...  # noqa: D102
    @property
    def share(self) -> float: ...  # noqa: D102
    @property
    def huge_bytes(self) -> int: ...  # noqa: D102
    @property
    def amplification(self) -> float | None: ...  # noqa: D102


class RoundFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one round, as in `report.Round`."""

    number: int
    sent_bytes: int
    seconds: float
    frozen_s: float
    dirty_rate: float | None = None
    predicted_downtime_s: float | None = None
    share: float = 1.0
    huge_bytes: int = 0
    amplification: float | None = None

    @classmethod
    def of(cls, of_round: HasFigures) -> "RoundFigures":
        """The figures of a round."""
        return cls(**{name: getattr(of_round, name) for name in cls.__struct_fields__})


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One migration of this host.

    `process` is the root of the tree on the source, `name` its name; `target` is what the user
    wrote, `source` and `destination` are the hosts' names, "" until they are known.  `phaul` is
    the phaul that runs it.  `exit_code` is that phaul's exit status, None until it has one; `fate`
    says where the process is, `error` what went wrong.  `died_in` is never in the file: it is the
    state in which its phaul died.
    """

    version: int = VERSION
    id: MigrationId
    state: State
    process: Incarnation
    name: Annotated[str, Meta(max_length=256)]
    target: Annotated[str, Meta(max_length=512)]
    source: _Host = ""
    destination: _Host = ""
    destination_pid: Pid | None = None
    started_unix: float
    updated_unix: float
    phaul: Incarnation
    rounds: Annotated[tuple[RoundFigures, ...], Meta(max_length=MOST_ROUNDS)] = ()
    max_downtime_s: float | None = None
    error: Text = ""
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    fate: Text = ""
    died_in: State | None = None

    @property
    def pid(self) -> int:
        """The PID of the tree's root on the source."""
        return self.process.pid

    @property
    def over(self) -> bool:
        """Whether nothing more is to come by itself."""
        return self.state.over

    @property
    def disposable(self) -> bool:
        """Whether it may be forgotten: nothing that somebody still has to settle.

        Before the cutover the destination never holds a copy, so one that died then is settled.
        """
        before = (State.CONNECTING, State.PREFLIGHT, State.PRE_COPY)
        return self.state.settled or self.died_in in before


def bounded(text: str, most: int = _MOST_TEXT) -> str:
    """The text as it can be written: cut to `most`, and as valid Unicode.

    File names in errors may have lone surrogates, which have no UTF-8.
    """
    return text[:most].encode(errors="replace").decode()


class _Head(msgspec.Struct):
    version: int


def save(directory: Path, entry: Entry, *, sync: bool) -> None:
    """Write the entry into a migration's directory; raises OSError."""
    write_whole(directory / ENTRY, msgspec.json.encode(entry), sync=sync)


def load(directory: Path) -> Entry:
    """The entry in a directory; raises OSError, and ValueError if it is damaged or foreign."""
    data = read_whole(directory / ENTRY, _LIMIT)
    version = msgspec.json.decode(data, type=_Head).version
    if version != VERSION:
        raise ValueError(f"it was written by another phaul, in version {version} of its form")
    entry = msgspec.json.decode(data, type=Entry)
    if entry.id != directory.name:
        raise ValueError(f"it is of another migration, {entry.id}")
    return msgspec.structs.replace(entry, died_in=None)
