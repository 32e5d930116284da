"""What is told of a migration: events while it runs, a report at its end.  Pure."""

from phaul.report.events import (
    CutoverStarted,
    Event,
    Held,
    PreCopyStopped,
    RoundFinished,
    RoundStarted,
    SourceGone,
    Started,
)
from phaul.report.report import Downtime, Report, Round, Way

__all__ = [
    "CutoverStarted",
    "Downtime",
    "Event",
    "Held",
    "PreCopyStopped",
    "Report",
    "Round",
    "RoundFinished",
    "RoundStarted",
    "SourceGone",
    "Started",
    "Way",
]
