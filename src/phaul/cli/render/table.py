"""`phaul list`: a table of the migrations of this machine.

Pure: the time and its zone are given.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo

from phaul.cli.render.look import PLAIN, Look, cells, padded
from phaul.cli.render.status import process_text
from phaul.report.status import Phase, Status
from phaul.report.units import clean, duration

__all__ = ["Line", "line_of", "table_text"]

_TITLES = ("ID", "STATE", "PROCESS", "TARGET", "STARTED", "DOWNTIME")
_STYLES = {
    Phase.FINISHED.value: "good",
    Phase.FAILED.value: "bad",
    Phase.UNKNOWN.value: "bad",
    Phase.CANCELLED.value: "warning",
}


@dataclass(frozen=True)
class Line:
    """One migration; `downtime` is "" where there is none yet."""

    id: str
    state: str
    process: str
    target: str
    started: str
    downtime: str = ""


def line_of(status: Status, zone: tzinfo | None = None) -> Line:
    """The line of `status`, its start as local time of `zone` (None: this machine's)."""
    started = datetime.fromtimestamp(status.started_unix).astimezone(zone)
    measured = status.phase is Phase.FINISHED and status.downtime_s is not None
    return Line(
        id=status.id,
        state=status.phase.value,
        process=process_text(status),
        target=status.target or status.destination,
        started=f"{started:%Y-%m-%d %H:%M}" if status.started_unix else "",
        downtime=duration(status.downtime_s) if measured else "",
    )


def table_text(lines: Iterable[Line], look: Look = PLAIN) -> str:
    """The table, or a sentence if it is empty.

    On a narrow terminal the longest of process and target are cut, with dots; the ID never is.
    """
    rows = [
        tuple(
            clean(text) or "-"
            for text in (r.id, r.state, r.process, r.target, r.started, r.downtime)
        )
        for r in lines
    ]
    if not rows:
        return "no migrations on this machine"
    widths = [max(cells(row[i]) for row in (_TITLES, *rows)) for i in range(len(_TITLES))]
    if look.width:
        _squeeze(widths, look.width)
    shown = ["   ".join(padded(t, w, "dim", look) for t, w in zip(_TITLES, widths, strict=True))]
    for row in rows:
        parts = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            parts.append(
                padded(_cut(text, width), width, _STYLES.get(text, "") if i == 1 else "", look)
            )
        shown.append("   ".join(parts))
    return "\n".join(line.rstrip() for line in shown)


def _squeeze(widths: list[int], room: int) -> None:
    over = sum(widths) + 3 * (len(widths) - 1) - room
    while over > 0:
        longest = max((2, 3), key=lambda i: widths[i])
        if widths[longest] <= 8:
            return
        widths[longest] -= 1
        over -= 1


def _cut(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 2:
        text = text[:-1]
    return text + ".."
