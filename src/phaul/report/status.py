"""How a migration stands: what its events so far come to.

Kept on the source while a migration runs, for the live line and for `phaul status`.  Pure: times
are given, in seconds since the epoch.
"""

from enum import Enum
from typing import Final

import msgspec

from phaul.plan import Way
from phaul.report.events import (
    Checked,
    Connected,
    Connecting,
    CutoverStarted,
    Draining,
    Event,
    Failed,
    Finished,
    Held,
    Planned,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
    SlowedDown,
    SourceGone,
    Started,
)
from phaul.report.report import PAGE_SIZE

__all__ = ["Phase", "RoundDone", "Status"]


class Phase(Enum):
    """Where in its way a migration is, and its four ends.

    `UNKNOWN` is also one whose phaul has died; only `phaul resolve` can tell.
    """

    CONNECTING = "connecting"
    CHECKING = "preflight"
    STARTING = "starting"
    PRE_COPY = "pre-copy"
    CUTOVER = "cutover"
    RESTORING = "restoring"
    RELEASING = "releasing"
    RUNNING_THERE = "running there"
    FINISHED = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing will follow."""
        return self in (Phase.FINISHED, Phase.FAILED, Phase.CANCELLED, Phase.UNKNOWN)

    @property
    def cancellable(self) -> bool:
        """Whether a cancel may still be in time."""
        return self in (
            Phase.CONNECTING,
            Phase.CHECKING,
            Phase.STARTING,
            Phase.PRE_COPY,
            Phase.CUTOVER,
        )


class RoundDone(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a round that is in, as in `Round`."""

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
    def of(cls, figures: object) -> "RoundDone":
        """From anything that has figures of the same names: a `Round`, or what was stored of it."""
        return cls(**{name: getattr(figures, name) for name in cls.__struct_fields__})


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A migration as it stands.  Bytes, seconds; times are seconds since the epoch.

    `phase_unix` is when `phase` began, 0 if that is not known, `round_unix` when the round did that
    is under way (`round`, None between rounds).  `sent_bytes` counts the rounds that are in.
    `share` is how much of its CPU time the process has.  `following_bytes` is memory that is still
    here when the process runs over there, None where none was left.  `downtime_s` is predicted
    while the migration runs, measured at its end.  `message`, `fate` and `exit_code` say how it
    ended.
    """

    v: int = 1
    id: str = ""
    pid: int | None = None
    name: str = ""
    target: str = ""
    destination: str = ""
    phase: Phase = Phase.CONNECTING
    started_unix: float = 0.0
    phase_unix: float = 0.0
    updated_unix: float = 0.0
    way: Way | None = None
    memory_bytes: int = 0
    max_downtime_s: float | None = None
    rounds: tuple[RoundDone, ...] = ()
    round: int | None = None
    round_unix: float = 0.0
    round_sent_bytes: int = 0
    round_expected_bytes: int = 0
    share: float = 1.0
    following_bytes: int | None = None
    sent_bytes: int = 0
    downtime_s: float | None = None
    destination_pid: int | None = None
    message: str = ""
    fate: str = ""
    exit_code: int | None = None

    def after(self, event: Event, now: float) -> "Status":
        """The status when `event` has happened at `now`."""
        changes = _changes(self, event, now)
        phase = changes.get("phase", self.phase)
        if phase is not self.phase or not self.started_unix:
            changes["phase_unix"] = now
        changes["started_unix"] = self.started_unix or now
        changes["updated_unix"] = now
        return msgspec.structs.replace(self, **changes)


_ENDS: Final = {8: Phase.UNKNOWN, 130: Phase.CANCELLED, 143: Phase.CANCELLED}


def _changes(status: Status, event: Event, now: float) -> dict[str, object]:
    match event:
        case Connecting(id=name, target=target):
            return {"phase": Phase.CONNECTING, "id": name, "target": target}
        case Connected(host=host):
            return {"phase": Phase.CHECKING, "destination": host}
        case Checked():
            return {"phase": Phase.STARTING}
        case Planned(plan=plan):
            return {
                "phase": Phase.STARTING,
                "way": plan.way,
                "memory_bytes": plan.memory_bytes,
                "downtime_s": plan.downtime_s,
            }
        case Started():
            return {
                "phase": Phase.STARTING,
                "pid": event.pid,
                "name": event.name,
                "way": event.way,
                "memory_bytes": event.memory_bytes,
            }
        case RoundStarted(number=number):
            cutover = status.phase is Phase.CUTOVER  # the final dump is sent as a round is
            phase = status.phase if cutover else Phase.PRE_COPY
            return {"phase": phase, **_round(number, now)}
        case RoundProgress(number=number):
            begun = {} if status.round == number else _round(number, now)
            return begun | {
                "round_sent_bytes": event.sent_bytes,
                "round_expected_bytes": event.expected_bytes,
            }
        case RoundFinished(round=done):
            predicted = done.predicted_downtime_s
            return {
                "rounds": (*status.rounds, RoundDone.of(done)),
                "sent_bytes": status.sent_bytes + done.sent_bytes,
                "downtime_s": status.downtime_s if predicted is None else predicted,
                **_round(None, now),
            }
        case SlowedDown(share=share):
            return {"share": share}
        case _:
            return _ending(event, now)


def _ending(event: Event, now: float) -> dict[str, object]:
    match event:
        case CutoverStarted():
            return {"phase": Phase.CUTOVER, **_round(None, now)}
        case Held():
            return {"phase": Phase.RESTORING, "share": 1.0, **_round(None, now)}
        case SourceGone():
            return {"phase": Phase.RELEASING}
        case Running(host=host, pid=pid):
            return {"phase": Phase.RUNNING_THERE, "destination": host, "destination_pid": pid}
        case Draining(follows=True):
            return {"following_bytes": max(event.pages - event.given, 0) * PAGE_SIZE}
        case Finished(report=report):
            return {
                "phase": Phase.FINISHED,
                "following_bytes": None,
                "sent_bytes": report.sent_bytes,
                "downtime_s": report.downtime.total_s,
                "exit_code": 1 if report.warnings else 0,
            }
        case Failed():
            return {
                "phase": _ENDS.get(event.exit_code, Phase.FAILED),
                "message": event.message,
                "fate": event.fate,
                "exit_code": event.exit_code,
                "share": 1.0,
                **_round(None, now),
            }
        case _:
            return {}


def _round(number: int | None, now: float) -> dict[str, object]:
    return {
        "round": number,
        "round_unix": now,
        "round_sent_bytes": 0,
        "round_expected_bytes": 0,
    }
