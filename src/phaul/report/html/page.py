"""The page as a whole: what matters most comes first.  Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from statistics import fmean
from typing import Final

from phaul.protocol.preflight import Finding, Level
from phaul.report.findings import in_order
from phaul.report.html.head import page_head
from phaul.report.html.markup import Markup, el, join
from phaul.report.html.rounds import rounds_plot
from phaul.report.html.svg import rect
from phaul.report.html.tables import plan_table, rounds_table
from phaul.report.html.timeline import known_beginnings, timeline
from phaul.report.report import Report
from phaul.report.units import duration, plural, rate, size

__all__ = ["page"]

_WIDE: Final = 810.0
_NARROW: Final = 330.0


def page(report: Report) -> str:
    """`report` as one HTML page that needs nothing else."""
    head = page_head(f"{_headline(report)} \u2013 phaul")
    main = el(
        "main",
        _figures(report),
        *(el("p", warning, class_="note") for warning in report.warnings),
        _timeline(report),
        _rounds(report),
        _plan(report),
        _preflight(report.findings),
    )
    body = el("body", _header(report), main, _footer(report))
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _headline(report: Report) -> str:
    way = " ".join(
        part
        for part in (
            f"from {report.source}" if report.source else "",
            f"to {report.destination}" if report.destination else "",
        )
        if part
    )
    return f"{report.name or 'A process'} moved {way}".strip()


def _header(report: Report) -> Markup:
    facts = [f"PID {report.pid}"]
    if report.destination_pid not in (None, report.pid):
        facts.append(f"PID {report.destination_pid} there")
    facts.append(report.way.value)
    if moment := _moment(report.started_unix):
        facts.append(moment)
    if report.id:
        facts.append(f"migration {report.id}")
    return el(
        "header",
        el("h1", _headline(report)),
        el("p", " \u00b7 ".join(facts), class_="soft"),
    )


def _moment(unix: float) -> str:
    if unix <= 0:
        return ""
    try:
        return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return ""


def _figures(report: Report) -> Markup:
    total, most = report.downtime.total_s, report.max_downtime_s
    under, kind = "", None
    if most is not None:
        kept = total <= most
        kind = "good" if kept else "over"
        under = f"{'within' if kept else 'more than'} the {duration(most)} allowed"
    sent = ""
    if report.memory_bytes > 0:
        times = report.sent_bytes / report.memory_bytes
        sent = f"{times:.2f} times the memory, {size(report.memory_bytes)}"
    rounds = str(len(report.rounds))
    dirtied = [r.dirty_rate for r in report.rounds if r.dirty_rate is not None]
    meanwhile = f"meanwhile it dirtied {rate(fmean(dirtied))}" if dirtied else ""
    return el(
        "dl",
        _figure("Downtime", duration(total), under, kind),
        _figure("Whole migration", duration(report.seconds), _running(report)),
        _figure("Memory sent", size(report.sent_bytes), sent),
        _figure("Rounds before it", rounds, meanwhile if report.rounds else "stopped and copied"),
        class_="figures",
    )


def _running(report: Report) -> str:
    if report.seconds <= 0 or report.downtime.total_s > report.seconds:
        return ""
    share = 100 * (1 - report.downtime.total_s / report.seconds)
    return f"the process ran for {min(share, 99.9):.1f} % of it"


def _figure(name: str, value: str, under: str = "", kind: str | None = None) -> Markup:
    return el(
        "div",
        el("dt", name),
        el("dd", value),
        el("dd", under, class_=kind) if under else None,
    )


def _timeline(report: Report) -> Markup:
    note = None
    if report.rounds and not known_beginnings(report):
        note = el(
            "p",
            "When each round began is not known: they are drawn one after another.",
            class_="soft",
        )
    keys = [
        *([("sent", "a round"), ("still", "standing still in a round")] if report.rounds else []),
        ("real", "the cutover: the process stands still"),
        ("idle", "before and after"),
    ]
    key = el("ul", *(_key(kind, name) for kind, name in keys), class_="key")
    return el("section", el("h2", "Time"), note, key, _both(timeline, report))


def _key(kind: str, name: str) -> Markup:
    mark = el("svg", rect(1, 1, 12, 12, kind), viewBox="0 0 14 14", aria_hidden="true")
    return el("li", mark, name)


def _rounds(report: Report) -> Markup:
    why = report.explanation
    if not report.rounds:
        said = f"There was no round before the cutover: {why}." if why else ""
        plot = None
    else:
        said = f"{plural(len(report.rounds), 'round')}, then the cutover: {why}." if why else ""
        plot = _both(rounds_plot, report)
    return el(
        "section",
        el("h2", "Rounds"),
        el("p", said, class_="soft") if said else None,
        el("p", f"It was slowed down {report.slowdown}.", class_="soft")
        if report.slowdown is not None
        else None,
        el("p", f"Split were {report.split}.", class_="soft") if report.split is not None else None,
        plot,
        rounds_table(report),
    )


def _both(draw: Callable[[Report, float], Markup], report: Report) -> Markup:
    """The drawing for wide and for narrow screens: one that is only shrunk cannot be read."""
    return join(
        el("div", draw(report, _WIDE), class_="wide"),
        el("div", draw(report, _NARROW), class_="narrow"),
    )


def _plan(report: Report) -> Markup | None:
    plan = report.plan
    if plan is None:
        return None
    because = el("ul", *(el("li", line) for line in plan.because), class_="because")
    return el(
        "section",
        el("h2", "Plan"),
        el("p", plan.reason, class_="soft") if plan.reason else None,
        plan_table(report, plan),
        because if plan.because else None,
    )


def _preflight(findings: tuple[Finding, ...]) -> Markup | None:
    if not findings:
        return None
    ordered = in_order(findings)
    troubles = [f for f in ordered if f.level is not Level.OK]
    fine = [f for f in ordered if f.level is Level.OK]
    counted = f"{len(fine)} ok, {plural(len(troubles), 'warning')}" if troubles else "All was ok"
    return el(
        "section",
        el("h2", "Preflight"),
        el("p", f"{counted}.", class_="soft"),
        el("ul", *map(_finding, troubles + fine), class_="findings"),
    )


def _finding(found: Finding) -> Markup:
    about = el("p", found.check, el("span", f" \u00b7 {found.where.value}"), class_="about")
    return el(
        "li",
        el("span", found.level.value, class_=f"badge {found.level.value}"),
        el(
            "div",
            about,
            el("p", found.what),
            el("p", found.remedy, class_="remedy") if found.remedy else None,
        ),
    )


def _footer(report: Report) -> Markup:
    criu = [
        f"CRIU {version} on {host}"
        for version, host in (
            (report.source_criu, report.source or "the source"),
            (report.destination_criu, report.destination or "the destination"),
        )
        if version
    ]
    return el("footer", ", ".join(["Made by phaul", *criu]) + ".")
