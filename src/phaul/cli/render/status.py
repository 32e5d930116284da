"""`phaul status ID`: how a migration stands, in some lines.

Used on the source.  Pure: the time is given, in seconds since the epoch.
"""

import msgspec

from phaul.cli.render.look import PLAIN, Look, Row, labelled
from phaul.cli.render.result import round_text
from phaul.report.status import Phase, Status
from phaul.report.units import clean, duration, rate, size

__all__ = ["process_text", "status_json", "status_text"]


def status_text(status: Status, now: float, look: Look = PLAIN, *, most_rounds: int = 5) -> str:
    """`status` at `now`, with the newest `most_rounds` rounds."""
    style = {Phase.FINISHED: "good", Phase.FAILED: "bad"}.get(status.phase, "bold")
    ended = status.phase.ended
    until = status.updated_unix if ended else now
    state = status.phase.value
    if not ended:
        state += f", for {duration(until - status.phase_unix)}"
    rows: list[Row] = [
        ("migration", f"{status.id}: {process_text(status)} to {_there(status)}", "bold"),
        ("state", state, style),
        ("time", f"{duration(until - status.started_unix)} in all", "dim"),
        ("memory", size(status.memory_bytes) if status.memory_bytes else "", "dim"),
        ("way", status.way.value if status.way else "", "dim"),
    ]
    hidden = len(status.rounds) - most_rounds
    if hidden > 0:
        rows.append(("rounds", f"... {hidden} before these", "dim"))
    rows += [(f"round {r.number}", round_text(r), "dim") for r in status.rounds[-most_rounds:]]
    if status.round is not None:
        rows.append((f"round {status.round}", under_way(status, now), "bold"))
    rows.append(("sent", size(status.sent_bytes) if status.sent_bytes else "", "dim"))
    rows.append(("downtime", _downtime(status), "bold"))
    rows.append(("error", status.message, "bad"))
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
    if status.downtime_s is None:
        return ""
    if status.phase is Phase.FINISHED:
        return duration(status.downtime_s)
    if status.phase is Phase.FAILED:
        return ""
    text = f"now about {duration(status.downtime_s)}"
    if status.max_downtime_s is not None:
        text += f", to be at most {duration(status.max_downtime_s)}"
    return text
