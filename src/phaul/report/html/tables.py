"""The same in numbers: the rounds, and the plan against what came.  Pure."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from phaul.plan import Plan, Way
from phaul.report.html.markup import Markup, el, join
from phaul.report.html.rounds import bandwidth_of
from phaul.report.report import Report, Round
from phaul.report.units import duration, rate, size

__all__ = ["plan_table", "rounds_table"]

_UNKNOWN = "\u2013"
_Pair = tuple[str, str, str, str]


def rounds_table(report: Report) -> Markup:
    """A row for each round and the final dump, and the sum."""
    titles = (
        "",
        "sent",
        "on the wire",
        "took",
        "stood still",
        "bandwidth",
        "dirtied",
        "downtime predicted",
    )
    rounds = (*report.rounds, report.final)
    rows = [_row(r, f"round {r.number}") for r in report.rounds]
    rows.append(_row(report.final, "final dump"))
    wires = [r.wire_bytes for r in rounds]
    wire = sum(w for w in wires if w is not None)
    total = [
        size(report.sent_bytes),
        size(wire) if None not in wires else _UNKNOWN,
        duration(report.seconds),
        "",
        "",
        "",
        "",
    ]
    return _table(
        "The rounds in numbers",
        titles,
        rows,
        ("in all", *total),
    )


def _row(one: Round, name: str) -> tuple[str, ...]:
    return (
        name,
        size(one.sent_bytes),
        _or_dash(one.wire_bytes, size),
        duration(one.seconds),
        duration(one.frozen_s),
        _or_dash(bandwidth_of(one), rate),
        _or_dash(one.dirty_rate, rate),
        _or_dash(one.predicted_downtime_s, duration),
    )


def plan_table(report: Report, plan: Plan) -> Markup:
    """What was expected, what came, and how far apart they are."""
    rows: list[_Pair] = [
        ("way", plan.way.value, report.way.value, ""),
        _pair("memory", plan.memory_bytes, report.memory_bytes or None, size),
    ]
    if not {Way.STOP_AND_COPY, Way.POST_COPY} & {plan.way, report.way}:
        rows.append(("rounds", str(plan.rounds), str(len(report.rounds)), ""))
    speeds = [b for r in report.rounds if (b := bandwidth_of(r)) is not None]
    sending = sum(r.seconds for r in report.rounds)
    mean = sum(r.sent_bytes for r in report.rounds) / sending if speeds and sending > 0 else None
    dirtied = [r.dirty_rate for r in report.rounds if r.dirty_rate is not None]
    rows += [
        _pair("bandwidth", plan.bandwidth or None, mean, rate),
        _pair("dirtied", plan.dirty_rate, fmean(dirtied) if dirtied else None, rate),
        _pair("time in all", plan.seconds, report.seconds, duration),
        _pair("downtime", plan.downtime_s, report.downtime.total_s, duration),
    ]
    return _table("The plan against what came", ("", "planned", "came", "difference"), rows)


def _pair(
    name: str, planned: float | None, came: float | None, said: Callable[[float | None], str]
) -> _Pair:
    apart = ""
    ratio = came / planned if came is not None and planned and planned > 0 else math.nan
    if math.isfinite(ratio):
        share = round((ratio - 1) * 100)
        apart = f"{share:+d} %".replace("-", "\u2212") if share else "as planned"
    return name, _or_dash(planned, said), _or_dash(came, said), apart


def _or_dash(value: float | None, said: Callable[[float | None], str]) -> str:
    return _UNKNOWN if value is None else said(value)


def _table(
    caption: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    foot: Sequence[str] = (),
) -> Markup:
    head = join(*(el("th", t, scope="col") if t else el("td") for t in titles))
    last = el("tfoot", _line(foot)) if foot else None
    table = el(
        "table",
        el("caption", caption),
        el("thead", el("tr", head)),
        el("tbody", *map(_line, rows)),
        last,
    )
    # A wide table is scrolled by itself; the keyboard must reach it.
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _line(row: Sequence[str]) -> Markup:
    name, *values = row
    return el("tr", el("th", name, scope="row"), *(el("td", value) for value in values))
