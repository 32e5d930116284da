"""What happens in a migration, as typed values given to the caller's callback as it happens.

Made on the source, in the order in which they stand here.  `msgspec.json.encode` makes JSON of
each, with its name under "event".
"""

from collections.abc import Callable

import msgspec

from phaul.report.report import Round, Way

__all__ = [
    "CutoverStarted",
    "Event",
    "EventHandler",
    "Held",
    "PreCopyStopped",
    "RoundFinished",
    "RoundStarted",
    "SourceGone",
    "Started",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """The base of the events."""


class Started(_Event, frozen=True, kw_only=True, tag="started"):
    """Preflight is passed: `pid` is going to be moved in `way`, `reason` says why that way."""

    pid: int
    name: str
    way: Way
    reason: str
    memory_bytes: int
    criu: str


class RoundStarted(_Event, frozen=True, kw_only=True, tag="round-started"):
    """A round of the pre-copy begins; the destination's page server stands."""

    number: int


class RoundFinished(_Event, frozen=True, kw_only=True, tag="round-finished"):
    """A round is in: sent, written, and its page server has ended well."""

    round: Round


class PreCopyStopped(_Event, frozen=True, kw_only=True, tag="pre-copy-stopped"):
    """No more rounds: `reason` is the value of a `policy.StopReason`, then in words."""

    reason: str
    explanation: str


class CutoverStarted(_Event, frozen=True, kw_only=True, tag="cutover-started"):
    """`dump_copy_restore` is called; the process is frozen from about now."""


class Held(_Event, frozen=True, kw_only=True, tag="held"):
    """All is dumped and the memory has arrived; the frozen tree waits for the restore."""

    seconds: float


class SourceGone(_Event, frozen=True, kw_only=True, tag="source-gone"):
    """The tree is gone from the source: from now on it is the destination's alone."""


Event = Started | RoundStarted | RoundFinished | PreCopyStopped | CutoverStarted | Held | SourceGone
"""Any event."""

EventHandler = Callable[[Event], None]
"""Called in the migration's own thread; it should return soon.  What it raises before the commit
ends the migration as a failure; after it, nothing can, and the error is logged."""
