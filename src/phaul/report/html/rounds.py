"""The plot of the rounds: what each sent, how fast, and the downtime it promised.  Pure.

Three panels above each other with one axis, the rounds.  All scales are logarithmic: the first
round sends everything, the last ones next to nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from phaul.report.html.markup import Markup, join
from phaul.report.html.svg import (
    Log,
    byte_ticks,
    dot,
    drawing,
    label,
    polyline,
    rect,
    rule,
    second_ticks,
)
from phaul.report.report import Report, Round
from phaul.report.units import duration, plural, rate, size

__all__ = ["bandwidth_of", "rounds_plot"]

_LEFT: Final = 66.0
_RIGHT: Final = 10.0
_PANEL: Final = 112.0
_HEAD: Final = 30.0
_GAP: Final = 16.0
_FOOT: Final = 26.0
_DOT_BAND: Final = 10.5
Points = list[tuple[float, float | None]]


def rounds_plot(report: Report, width: float) -> Markup:
    """The plot, `width` pixels wide; `report` has a round at least."""
    axis = _Axis(len(report.rounds), width)
    panels = [_sent, _speed, *([_downtime] if _promises(report) else [])]
    shapes: list[Markup] = []
    y = 0.0
    for panel in panels:
        shapes.append(panel(report, axis, y))
        y += _HEAD + _PANEL + _GAP
    y += 4
    for place, text in axis.labels():
        shapes.append(label(axis.x(place), y, text, anchor="middle"))
    return drawing(
        f"rounds-{width:.0f}",
        width,
        y + _FOOT - 16,
        "The rounds",
        _description(report),
        *shapes,
    )


def bandwidth_of(one: Round) -> float | None:
    """Memory sent a second, None if it took no time."""
    return one.sent_bytes / one.seconds if one.seconds > 0 else None


def _promises(report: Report) -> bool:
    return any(r.predicted_downtime_s is not None for r in report.rounds)


def _description(report: Report) -> str:
    first, last = report.rounds[0], report.rounds[-1]
    return (
        f"{plural(len(report.rounds), 'round')}: the first sent {size(first.sent_bytes)}, the last "
        f"{size(last.sent_bytes)}, the final dump {size(report.final.sent_bytes)}. "
        f"The downtime was {duration(report.downtime.total_s)}. The table below has all numbers."
    )


@dataclass(frozen=True)
class _Axis:
    """The horizontal axis: a band for each round, and one for the final dump."""

    rounds: int
    width: float

    @property
    def band(self) -> float:
        return (self.width - _LEFT - _RIGHT) / (self.rounds + 1)

    @property
    def end(self) -> float:
        return self.width - _RIGHT

    def x(self, place: int) -> float:
        return _LEFT + (place + 0.5) * self.band

    def labels(self) -> list[tuple[int, str]]:
        every = next(k for k in (1, 2, 5, 10, 20, 50, 100, 1000) if k * self.band >= 24)
        shown = [
            (n, f"round {n}" if n == 0 and self.band > 54 else str(n))
            for n in range(0, self.rounds, every)
            if (self.rounds - n) * self.band >= 34
        ]
        return [*shown, (self.rounds, "final")]


def _frame(axis: _Axis, top: float, ticks: Sequence[float], name: Callable[[float], str]) -> Markup:
    scale = _scale(ticks, top)
    shapes = []
    for tick in ticks:
        shapes.append(rule(_LEFT, scale(tick), axis.end, scale(tick)))
        shapes.append(label(_LEFT - 8, scale(tick) + 4, name(tick), anchor="end"))
    return join(*shapes)


def _scale(ticks: Sequence[float], top: float) -> Log:
    return Log(ticks[0], ticks[-1], top + _HEAD + _PANEL, top + _HEAD)


def _round_number(value: float, name: Callable[[float], str]) -> str:
    return name(value).replace(".00 ", " ").replace(".0 ", " ")


def _sent(report: Report, axis: _Axis, top: float) -> Markup:
    all_rounds = (*report.rounds, report.final)
    # Half of the least, so that no bar stands on the floor of the scale.
    ticks = byte_ticks([v for r in all_rounds for v in (r.sent_bytes, r.sent_bytes / 2)])
    scale = _scale(ticks, top)
    bottom = top + _HEAD + _PANEL
    wide = min(axis.band * 0.72, 46.0)
    shapes = [
        label(0, top + 14, "Memory sent", kind="name"),
        label(axis.end, top + 14, "all scales are logarithmic", anchor="end"),
        _frame(axis, top, ticks, lambda v: _round_number(v, size)),
    ]
    for place, one in enumerate(all_rounds):
        final = place == axis.rounds
        called = "final dump" if final else f"round {one.number}"
        y = scale(one.sent_bytes)
        shapes.append(
            rect(
                axis.x(place) - wide / 2,
                y,
                wide,
                bottom - y,
                "final" if final else "sent",
                tip=f"{called}: {size(one.sent_bytes)}",
            )
        )
        if axis.band >= 62:
            shapes.append(
                label(axis.x(place), y - 5, size(one.sent_bytes), anchor="middle", kind="value")
            )
    return join(*shapes)


def _speed(report: Report, axis: _Axis, top: float) -> Markup:
    sent: Points = [(axis.x(i), bandwidth_of(r)) for i, r in enumerate(report.rounds)]
    dirtied: Points = [(axis.x(i), r.dirty_rate) for i, r in enumerate(report.rounds)]
    ticks = byte_ticks([v for _, v in (*sent, *dirtied) if v])
    measured = any(v is not None for _, v in dirtied)
    legend = [("speed", "bandwidth", False), *([("dirty", "dirtied", True)] if measured else [])]
    scale = _scale(ticks, top)
    shapes = [
        label(0, top + 14, "Speed", kind="name"),
        *_legend(axis, top, *legend),
        _frame(axis, top, ticks, lambda v: _round_number(v, rate)),
        _series(axis, sent, scale, "speed", lambda v: f"bandwidth {rate(v)}"),
        _series(axis, dirtied, scale, "dirty", lambda v: f"dirtied {rate(v)}", square=True),
    ]
    return join(*shapes)


def _downtime(report: Report, axis: _Axis, top: float) -> Markup:
    promised: Points = [(axis.x(i), r.predicted_downtime_s) for i, r in enumerate(report.rounds)]
    real, most = report.downtime.total_s, report.max_downtime_s
    values = [v for _, v in promised if v] + [real] + ([most] if most else [])
    ticks = second_ticks(values)
    scale = _scale(ticks, top)
    legend = [("predicted", "predicted", True), ("real", "real", False)]
    shapes = [
        label(0, top + 14, "Downtime", kind="name"),
        _frame(axis, top, ticks, lambda v: f"{v:g} s" if v >= 1 else duration(v)),
    ]
    if most:
        legend.append(("allowed", "allowed", False))
        shapes.append(rule(_LEFT, scale(most), axis.end, scale(most), "allowed"))
    last = axis.x(axis.rounds)
    shapes += [
        _series(
            axis, promised, scale, "predicted", lambda v: f"predicted {duration(v)}", square=True
        ),
        rule(axis.x(0), scale(real), last, scale(real), "real thin"),
        dot(last, scale(real), "real", tip=f"real: {duration(real)}"),
        *_legend(axis, top, *legend),
    ]
    return join(*shapes)


def _series(
    axis: _Axis,
    points: Points,
    scale: Log,
    kind: str,
    tip: Callable[[float], str],
    *,
    square: bool = False,
) -> Markup:
    """A line, broken where a value is unknown, and its points, if there is room for them."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((x, scale(value)))
    lonely = all(len(run) < 2 for run in runs)
    shown = axis.band >= _DOT_BAND or lonely
    known = [(x, v) for x, v in points if v is not None and shown]
    return join(
        *(polyline(run, kind) for run in runs),
        *(dot(x, scale(v), kind, tip=tip(v), square=square) for x, v in known),
    )


def _legend(axis: _Axis, top: float, *entries: tuple[str, str, bool]) -> list[Markup]:
    """Names with their marks, from the right end."""
    shapes = []
    x = axis.end
    for kind, name, square in reversed(entries):
        x -= len(name) * 6.6
        shapes.append(label(x, top + 14, name))
        x -= 10
        if kind == "allowed":
            x -= 10
            shapes.append(rule(x, top + 10, x + 16, top + 10, kind))
        else:
            shapes.append(dot(x, top + 10, kind, square=square))
        x -= 16
    return shapes
