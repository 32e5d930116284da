"""The result: where the process is now, its downtime by parts, what was sent.

Goes to stdout at a migration's end, on the host where the command was typed.  Pure.
"""

import msgspec

from phaul.cli.render.look import PLAIN, Look, Row, labelled
from phaul.cli.render.outcome import Moved
from phaul.facts import AMPLIFIED
from phaul.report import Downtime, Report, Round
from phaul.report.report import PAGE_SIZE
from phaul.report.status import RoundDone
from phaul.report.units import duration, rate, size, slowed

__all__ = ["downtime_text", "report_text", "result_json", "result_text", "round_text"]


def result_text(report: Report, look: Look = PLAIN) -> str:
    """The three things a person wants to know, and the warnings."""
    return labelled(_result(report), look)


def report_text(report: Report, look: Look = PLAIN) -> str:
    """The whole report: the result, what led to it, and its rounds."""
    criu = " to ".join(dict.fromkeys(c for c in (report.source_criu, report.destination_criu) if c))
    rows = [
        *_result(report),
        ("way", f"{report.way.value}: {report.explanation}", "dim"),
        ("criu", criu, "dim"),
        *((f"round {r.number}", round_text(r, verbose=True), "dim") for r in report.rounds),
        ("final", round_text(report.final, verbose=True, dirty=False), "dim"),
    ]
    if report.followed is not None:
        rows.append(("followed", str(report.followed), "dim"))
    if report.drained is not None:
        came = f"{size(report.drained.pages * PAGE_SIZE)} in {duration(report.drained.seconds)}"
        rows.append(("restored", f"lazily: {came} after it ran", "dim"))
    return labelled(rows, look)


def result_json(report: Report, exit_code: int | None = None) -> str:
    """The one object that `--json` prints; the exit code is 1 with warnings, else 0."""
    code = (1 if report.warnings else 0) if exit_code is None else exit_code
    return msgspec.json.encode(Moved(exit_code=code, report=report)).decode()


def downtime_text(downtime: Downtime) -> str:
    """`360 ms = freeze 14 ms + dump ...`: the whole, and its parts in their order."""
    parts = " + ".join(f"{name} {duration(seconds)}" for name, seconds in downtime.parts())
    return f"{duration(downtime.total_s)} = {parts}"


def round_text(done: Round | RoundDone, *, verbose: bool = False, dirty: bool = True) -> str:
    """`42.1 MiB    118 MiB/s   dirtied 9.7 MiB/s   downtime now about 360 ms`."""
    speed = done.sent_bytes / done.seconds if done.seconds > 0 else None
    said = [f"{size(done.sent_bytes):>8}", f"{rate(speed) if speed is not None else '':>10}"]
    if dirty and done.dirty_rate is not None:
        said.append(f"dirtied {rate(done.dirty_rate):>10}")
    if dirty and done.predicted_downtime_s is not None:
        said.append(f"downtime now about {duration(done.predicted_downtime_s)}")
    if done.share < 1:
        said.append(slowed(done.share))
    if done.amplification is not None and done.amplification >= AMPLIFIED:
        said.append(f"by huge pages about {done.amplification:.0f} times what was written")
    elif done.huge_bytes and done.amplification is None:
        said.append(f"up to {size(done.huge_bytes)} in huge pages")
    if verbose:
        said.append(f"frozen {duration(done.frozen_s)}")
        said.append(f"took {duration(done.seconds)}")
        if isinstance(done, Round) and done.wire_bytes is not None:
            said.append(f"{size(done.wire_bytes)} on the wire")
    return "   ".join(said).rstrip()


def _result(report: Report) -> list[Row]:
    there = report.destination or "the destination"
    pid = report.destination_pid or report.pid
    gone = f"; it is gone from {report.source}" if report.source else "; it is gone from here"
    if there == report.source:
        gone = " of a PID namespace of its own there"
    downtime = downtime_text(report.downtime)
    if report.max_downtime_s is not None and report.downtime.total_s > report.max_downtime_s:
        downtime += f"; more than the {duration(report.max_downtime_s)} that were asked for"
    sent = f"{size(report.sent_bytes)} in {duration(report.seconds)}"
    if report.memory_bytes:
        times = report.sent_bytes / report.memory_bytes
        sent += f", {times:.2f} times the memory's {size(report.memory_bytes)}"
    return [
        ("process", f"{report.name} runs on {there}, PID {pid}{gone}", "good"),
        ("downtime", downtime, "bold"),
        ("sent", sent, "bold"),
        ("slowed", str(report.slowdown or ""), "warning"),
        ("split", str(report.split or ""), "dim"),
        *(("warning", warning, "warning") for warning in report.warnings),
    ]
