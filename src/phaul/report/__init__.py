"""What is told of a migration: events while it runs, a report at its end.  Pure."""

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
    PreCopyStopped,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
    SourceGone,
    Started,
)
from phaul.report.report import Downtime, Drained, Report, Round
from phaul.report.status import Phase, Status

__all__ = [
    "Checked",
    "Connected",
    "Connecting",
    "CutoverStarted",
    "Downtime",
    "Drained",
    "Draining",
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
    "SourceGone",
    "Started",
    "Status",
    "Way",
]
