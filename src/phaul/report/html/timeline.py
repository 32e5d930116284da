"""The whole migration on one line, and its downtime's parts under it, enlarged.  Pure.

Both are in scale; what would be too thin to be seen is drawn a pixel and a half wide.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from phaul.report.html.markup import Markup, el, join
from phaul.report.html.svg import Linear, drawing, label, nice_ticks, rect, rule
from phaul.report.report import Report
from phaul.report.units import duration

__all__ = ["Stretch", "known_beginnings", "stretches", "timeline"]

_THIN: Final = 1.5
_STRIP: Final = 30.0
_ROW: Final = 26.0
_LABELS: Final = 116.0
_VALUES: Final = 58.0


@dataclass(frozen=True)
class Stretch:
    """A stretch of the migration, in seconds after its beginning."""

    name: str
    kind: str
    begun: float
    seconds: float
    frozen: float = 0.0


def known_beginnings(report: Report) -> bool:
    """Whether the report says when things began."""
    return any(r.begun_s > 0 for r in (*report.rounds, report.final))


def stretches(report: Report) -> list[Stretch]:
    """What the migration's time was spent with, in order, without gaps that can be seen."""
    return list(_stretches(report))


def _stretches(report: Report) -> Iterator[Stretch]:
    down = max(report.downtime.total_s, 0.0)
    known = known_beginnings(report)
    at = 0.0
    for place, one in enumerate(report.rounds):
        begun = one.begun_s if known else at
        if place == 0 and begun > 0:
            yield Stretch("before", "idle", 0.0, begun)
        kind = "sent" if place % 2 == 0 else "sent odd"
        yield Stretch(f"round {one.number}", kind, begun, max(one.seconds, 0.0), one.frozen_s)
        at = begun + max(one.seconds, 0.0)
    begun = report.final.begun_s if known else max(at, report.seconds - down)
    if not report.rounds and begun > 0:
        yield Stretch("before", "idle", 0.0, begun)
    yield Stretch("cutover", "real", begun, down)
    if report.seconds > begun + down:
        yield Stretch("after", "idle", begun + down, report.seconds - begun - down)


def timeline(report: Report, width: float) -> Markup:
    """The drawing, `width` pixels wide."""
    parts = stretches(report)
    end = max([report.seconds, *(s.begun + s.seconds for s in parts)])
    scale = Linear(0.0, end, 0.0, width)
    cut = next(s for s in parts if s.kind == "real")
    left, right = _LABELS, width - _VALUES
    top = 24 + _STRIP + 64
    x1 = scale(cut.begun)
    x2 = max(scale(cut.begun + cut.seconds), x1 + _THIN)
    shapes = [
        _zoom(x1, x2, 24 + _STRIP, left, right, top),
        _strip(parts, scale),
        _axis(end, scale, width),
        _parts(report, left, right, top),
    ]
    height = top + 10 + _ROW * 5 + 30
    return drawing(
        f"timeline-{width:.0f}",
        width,
        height,
        "The whole migration, and its downtime",
        _description(report),
        *shapes,
    )


def _description(report: Report) -> str:
    named = ", ".join(f"{name} {duration(s)}" for name, s in report.downtime.parts())
    return (
        f"The migration took {duration(report.seconds)}. The process stood still for "
        f"{duration(report.downtime.total_s)} at its end: {named}."
    )


def _strip(parts: list[Stretch], scale: Linear) -> Markup:
    top = 24.0
    shapes = []
    for part in parts:
        x = scale(part.begun)
        wide = max(scale(part.begun + part.seconds) - x, _THIN)
        shapes.append(
            rect(x, top, wide, _STRIP, part.kind, tip=f"{part.name}: {duration(part.seconds)}")
        )
        if part.frozen > 0:
            still = max(scale(part.begun + part.frozen) - x, _THIN)
            tip = f"{part.name}: stood still for {duration(part.frozen)}"
            shapes.append(rect(x, top + _STRIP - 7, still, 7, "still", tip=tip, round_=0))
        named = part.name
        if wide < len(named) * 6.6 + 8:
            named = named.removeprefix("round ") if wide >= 14 and part.kind != "idle" else ""
        if named and part.kind != "real":
            kind = "soft" if part.kind == "idle" else "inside"
            shapes.append(label(x + wide / 2, top + 19, named, anchor="middle", kind=kind))
    cut = next(s for s in parts if s.kind == "real")
    middle = scale(cut.begun + cut.seconds / 2)
    text = f"downtime {duration(cut.seconds)}"
    half = len(text) * 4.2
    if middle > scale.end - half:
        shapes.append(label(scale.end, 14, text, anchor="end", kind="name"))
    elif middle < half:
        shapes.append(label(0, 14, text, kind="name"))
    else:
        shapes.append(label(middle, 14, text, anchor="middle", kind="name"))
    return join(*shapes)


def _axis(end: float, scale: Linear, width: float) -> Markup:
    y = 24 + _STRIP
    shapes = []
    for tick in nice_ticks(end, 8 if width > 500 else 4):
        x = scale(tick)
        shapes.append(rule(x, y + 2, x, y + 7, "tick"))
        anchor = "start" if x < 12 else "end" if x > width - 24 else "middle"
        text = "0" if tick == 0 else duration(tick).replace(".00 s", " s").replace(".0 s", " s")
        shapes.append(label(x, y + 20, text, anchor=anchor))
    return join(*shapes)


def _zoom(x1: float, x2: float, y1: float, left: float, right: float, y2: float) -> Markup:
    points = f"{x1:.1f},{y1:.1f} {x2:.1f},{y1:.1f} {right:.1f},{y2:.1f} {left:.1f},{y2:.1f}"
    return el("polygon", points=points, class_="zoom")


def _parts(report: Report, left: float, right: float, top: float) -> Markup:
    total, most = report.downtime.total_s, report.max_downtime_s
    # The allowed downtime is shown where it does not squeeze what there was.
    shown = most if most is not None and 0 < most <= total * 1.6 else None
    scale = Linear(0.0, max(total, shown or 0.0), left, right)
    bottom = top + 10 + _ROW * 5
    shapes = [rect(left, top, right - left, bottom - top + 4, "ground", round_=0)]
    for tick in nice_ticks(scale.high, 5 if right - left > 400 else 2):
        x = scale(tick)
        shapes.append(rule(x, top, x, bottom + 4))
        text = "0" if tick == 0 else duration(tick)
        shapes.append(label(x, bottom + 20, text, anchor="middle"))
    at = 0.0
    for place, (name, seconds) in enumerate(report.downtime.parts()):
        y = top + 10 + place * _ROW
        x = scale(at)
        wide = max(scale(at + seconds) - x, _THIN)
        shapes += [
            label(left - 10, y + 13, name, anchor="end", kind="ink"),
            rect(
                min(x, right - _THIN), y, wide, _ROW - 8, "real", tip=f"{name}: {duration(seconds)}"
            ),
            label(right + 8, y + 13, duration(seconds), kind="ink"),
        ]
        at += max(seconds, 0.0)
    if shown is not None:
        shapes.append(rule(scale(shown), top, scale(shown), bottom + 4, "allowed"))
        near = scale(shown) - 5
        shapes.append(
            label(near, top + 20, f"allowed {duration(shown)}", anchor="end", kind="soft")
        )
    return join(*shapes)
