"""What happens in a migration, as typed values given to the caller's callback as it happens.

Made on the source, in the order in which they stand here.  `msgspec.json.encode` makes JSON of
each, with its name under "event".
"""

from collections.abc import Callable

import msgspec

from phaul.plan import Plan, Way
from phaul.protocol.preflight import Finding
from phaul.report.report import Drained, Report, Round

__all__ = [
    "Amplified",
    "Checked",
    "Connected",
    "Connecting",
    "CutoverStarted",
    "Drained",
    "Draining",
    "Event",
    "EventHandler",
    "Failed",
    "Finished",
    "Held",
    "HugePagesSplit",
    "Planned",
    "PreCopyStopped",
    "RoundFinished",
    "RoundProgress",
    "RoundStarted",
    "Running",
    "SlowedDown",
    "SourceGone",
    "Started",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """The base of the events."""


class Connecting(_Event, frozen=True, kw_only=True, tag="connecting"):
    """The other host is being reached."""

    id: str
    target: str


class Connected(_Event, frozen=True, kw_only=True, tag="connected"):
    """The agent over there has said who it is."""

    host: str
    phaul: str
    criu: str
    kernel: str


class Checked(_Event, frozen=True, kw_only=True, tag="checked"):
    """Preflight has looked at both hosts; `findings` in the catalogue's order."""

    findings: tuple[Finding, ...]


class Planned(_Event, frozen=True, kw_only=True, tag="planned"):
    """What is going to be done."""

    plan: Plan


class Started(_Event, frozen=True, kw_only=True, tag="started"):
    """Preflight is passed: `pid` is going to be moved in `way`, `reason` says why that way."""

    pid: int
    name: str
    way: Way
    reason: str
    memory_bytes: int
    criu: str


class HugePagesSplit(_Event, frozen=True, kw_only=True, tag="huge-pages-split"):
    """Huge pages were split, before a round; from then on khugepaged waits.  `left_bytes` are not.

    `seconds` is how long it took, while the process ran.
    """

    split_bytes: int
    left_bytes: int
    seconds: float


class RoundStarted(_Event, frozen=True, kw_only=True, tag="round-started"):
    """A round of the pre-copy begins; the destination is ready for it."""

    number: int


class RoundProgress(_Event, frozen=True, kw_only=True, tag="round-progress"):
    """A round is under way: bytes sent so far, and about how many there will be."""

    number: int
    sent_bytes: int
    expected_bytes: int


class RoundFinished(_Event, frozen=True, kw_only=True, tag="round-finished"):
    """A round is in: sent, and written over there."""

    round: Round


class Amplified(_Event, frozen=True, kw_only=True, tag="amplified"):
    """A round sent about `times` as much as was written: pages of 2 MiB are sent whole.

    Told once.  At most `huge_bytes` of it were in such.  `can_split`: they could be split
    (`--split-huge-pages`).
    """

    times: float
    huge_bytes: int
    can_split: bool


class SlowedDown(_Event, frozen=True, kw_only=True, tag="slowed-down"):
    """The rounds do not converge: the process has `share` of its CPU time from now on.

    Before, it used `cpus` processors (1.5: one and a half).
    """

    share: float
    cpus: float


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


class Running(_Event, frozen=True, kw_only=True, tag="running"):
    """The tree runs on the destination."""

    host: str
    pid: int


class Draining(_Event, frozen=True, kw_only=True, tag="draining"):
    """It runs, and its memory comes: pages that were left out of the restore, and those given.

    Where it `follows` it comes from the source, which is needed until then.
    """

    pages: int
    given: int
    follows: bool = False


class Finished(_Event, frozen=True, kw_only=True, tag="finished"):
    """The last event of a migration that went well."""

    report: Report


class Failed(_Event, frozen=True, kw_only=True, tag="failed"):
    """The last event of one that did not: the error's class and fields, and its exit code."""

    kind: str
    message: str
    fate: str
    exit_code: int


Event = (
    Connecting
    | Connected
    | Checked
    | Planned
    | Started
    | HugePagesSplit
    | RoundStarted
    | RoundProgress
    | RoundFinished
    | Amplified
    | SlowedDown
    | PreCopyStopped
    | CutoverStarted
    | Held
    | SourceGone
    | Running
    | Draining
    | Drained
    | Finished
    | Failed
)
"""Any event."""

EventHandler = Callable[[Event], None]
"""Called in the migration's own thread; it should return soon.  What it raises before the commit
ends the migration as a failure; after it, nothing can, and the error is logged."""
