"""`phaul status ID`: how a migration stands, in some lines.

Used on the source.  Pure: the time is given, in seconds since the epoch.
"""

from typing import Final

import msgspec

from phaul.cli.render.look import PLAIN, Look, Row, labelled
from phaul.cli.render.result import round_text
from phaul.report import Report
from phaul.report.status import Phase, RoundDone, Status
from phaul.report.units import clean, duration, rate, size, slowed
from phaul.source.steering import Standing
from phaul.storage.entry import Entry, State

__all__ = ["process_text", "status_json", "status_of", "status_text", "under_way"]

_STYLES: Final = {Phase.FINISHED: "good", Phase.FAILED: "bad", Phase.UNKNOWN: "bad"}
_PHASES: Final = {
    State.CONNECTING: Phase.CONNECTING,
    State.PREFLIGHT: Phase.CHECKING,
    State.PRE_COPY: Phase.PRE_COPY,
    State.CUTOVER: Phase.CUTOVER,
    State.DONE: Phase.FINISHED,
    State.FAILED: Phase.FAILED,
    State.CANCELLED: Phase.CANCELLED,
    State.UNKNOWN: Phase.UNKNOWN,
}


def status_of(
    entry: Entry, now: float, standing: Standing | None = None, report: Report | None = None
) -> Status:
    """The status from what is stored, what the running phaul says, and the report at its end."""
    phase = _PHASES[standing.state if standing else entry.state]
    predicted = [r.predicted_downtime_s for r in entry.rounds if r.predicted_downtime_s is not None]
    status = Status(
        id=entry.id,
        pid=entry.pid,
        name=entry.name,
        target=entry.target,
        destination=entry.destination,
        phase=phase,
        started_unix=entry.started_unix,
        updated_unix=entry.updated_unix,
        rounds=tuple(RoundDone.of(r) for r in entry.rounds),
        sent_bytes=sum(r.sent_bytes for r in entry.rounds),
        max_downtime_s=entry.max_downtime_s,
        downtime_s=predicted[-1] if predicted else None,
        destination_pid=entry.destination_pid,
        message=entry.error,
        fate=entry.fate,
        exit_code=entry.exit_code,
    )
    if standing is not None:
        status = msgspec.structs.replace(
            status,
            updated_unix=now,
            max_downtime_s=standing.max_downtime_s,
            round=standing.number,
            round_unix=now - standing.round_s,
            round_sent_bytes=standing.sent_bytes,
            share=standing.share,
            round_expected_bytes=standing.expected_bytes,
        )
    if report is not None:
        status = msgspec.structs.replace(
            status,
            way=report.way,
            memory_bytes=report.memory_bytes,
            sent_bytes=report.sent_bytes,
            downtime_s=report.downtime.total_s,
        )
    elif phase is Phase.FINISHED:
        status = msgspec.structs.replace(status, downtime_s=None)
    return status


def status_text(status: Status, now: float, look: Look = PLAIN, *, most_rounds: int = 5) -> str:
    """`status` at `now`, with the newest `most_rounds` rounds, none if that is 0."""
    style = _STYLES.get(status.phase, "bold")
    ended = status.phase.ended
    until = status.updated_unix if ended else now
    state = status.phase.value
    if status.phase_unix and not ended:
        state += f", for {duration(until - status.phase_unix)}"
    rows: list[Row] = [
        ("migration", f"{status.id}: {process_text(status)} to {_there(status)}", "bold"),
        ("state", state, style),
        ("time", f"{duration(until - status.started_unix)} in all", "dim"),
        ("memory", size(status.memory_bytes) if status.memory_bytes else "", "dim"),
        ("way", status.way.value if status.way else "", "dim"),
    ]
    hidden = len(status.rounds) - most_rounds
    if hidden > 0 and most_rounds:
        rows.append(("rounds", f"... {hidden} before these", "dim"))
    shown = status.rounds[max(hidden, 0) :]
    rows += [(f"round {r.number}", round_text(r), "dim") for r in shown]
    if status.round is not None:
        slow = f", {slowed(status.share)}" if status.share < 1 else ""
        rows.append((f"round {status.round}", under_way(status, now) + slow, "bold"))
    rows.append(("sent", size(status.sent_bytes) if status.sent_bytes else "", "dim"))
    rows.append(("downtime", _downtime(status), "bold"))
    first, *more = status.message.splitlines() or [""]
    rows.append(("error", first, "bad"))
    rows += [("", line, "dim") for line in more if line != status.fate]
    rows.append(("process", status.fate, "bold"))
    return labelled(rows, look)


def status_json(status: Status) -> str:
    """The one object that `phaul status --json` prints."""
    return msgspec.json.encode(status).decode()


def process_text(status: Status) -> str:
    """`dirtier, PID 4242`."""
    name = clean(status.name) or "a process"
    return f"{name}, PID {status.pid}" if status.pid else name


def under_way(status: Status, now: float) -> str:
    """`26.1 MiB of 42.1 MiB, 118 MiB/s`: the round that is being sent."""
    sent = size(status.round_sent_bytes)
    if status.round_expected_bytes > 0:
        sent += f" of {size(max(status.round_expected_bytes, status.round_sent_bytes))}"
    elapsed = now - status.round_unix
    if status.round_sent_bytes and elapsed > 0.2:
        sent += f", {rate(status.round_sent_bytes / elapsed)}"
    return sent


def _there(status: Status) -> str:
    return status.destination or status.target or "another host"


def _downtime(status: Status) -> str:
    if status.phase.ended:
        known = status.phase is Phase.FINISHED and status.downtime_s is not None
        return duration(status.downtime_s or 0.0) if known else ""
    said = []
    if status.downtime_s is not None:
        said.append(f"now about {duration(status.downtime_s)}")
    if status.max_downtime_s is not None:
        said.append(f"to be at most {duration(status.max_downtime_s)}")
    return ", ".join(said)
