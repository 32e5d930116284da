"""What is told of a migration: events while it runs, a report at its end.  Pure."""

from phaul.plan import Way
from phaul.report.events import (
    Checked,
    Connected,
    Connecting,
    CutoverStarted,
    Event,
    Failed,
    Finished,
    Held,
    Planned,
    PreCopyStopped,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
    SlowedDown,
    SourceGone,
    Started,
)
from phaul.report.report import Downtime, Report, Round, Slowdown, SlowStep
from phaul.report.status import Phase, Status

__all__ = [
    "Checked",
    "Connected",
    "Connecting",
    "CutoverStarted",
    "Downtime",
    "Event",
    "Failed",
    "Finished",
    "Held",
    "Phase",
    "Planned",
    "PreCopyStopped",
    "Report",
    "Round",
    "RoundFinished",
    "RoundProgress",
    "RoundStarted",
    "Running",
    "SlowStep",
    "Slowdown",
    "SlowedDown",
    "SourceGone",
    "Started",
    "Status",
    "Way",
]
