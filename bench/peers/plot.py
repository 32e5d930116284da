"""The scaling plot of `bench.peers`: the downtime over the memory's size, by contender.  Pure.

Both scales are logarithmic.  A dot is a median, the line through it reaches to the quartiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.peers.contenders import CONTENDERS
from bench.peers.demands import Spread
from bench.peers.results import PlaceResults
from bench.peers.scenarios import scales
from bench.peers.tables import of_each, spread_text
from phaul.report.html.markup import Markup
from phaul.report.html.svg import Log, dot, drawing, label, polyline, rule, second_ticks
from phaul.report.units import duration

__all__ = ["Curve", "curves", "scaling_plot", "spaced"]

_LEFT: Final = 62.0
_RIGHT: Final = 84.0
_TOP: Final = 14.0
_HEIGHT: Final = 260.0
_FOOT: Final = 44.0
_LINE: Final = 14.0


@dataclass(frozen=True)
class Curve:
    """A contender's downtimes by size in MiB, in the order of the sizes; `mark` is its class."""

    name: str
    mark: str
    points: tuple[tuple[int, Spread], ...]


def curves(place: PlaceResults) -> list[Curve]:
    """Those that have a point at least."""
    wanted = sorted(
        (row for row in place.rows if scales(row.scenario, place.place)),
        key=lambda row: row.scenario.size_mb,
    )
    found = []
    for one in CONTENDERS:
        points = [
            (row.scenario.size_mb, figures)
            for row in wanted
            if (figures := of_each(row.samples.get(one.name, []), lambda s: s.gap_s))
        ]
        if points:
            found.append(Curve(one.name, one.mark, tuple(points)))
    return found


def scaling_plot(place: PlaceResults, width: float) -> Markup | None:
    """The plot, `width` pixels wide; None where nothing of it was measured."""
    drawn = curves(place)
    if not drawn:
        return None
    sizes = sorted({size for curve in drawn for size, _ in curve.points})
    seconds = [v for curve in drawn for _, s in curve.points for v in (s.low, s.high)]
    ticks = second_ticks(seconds)
    x = Log(sizes[0] / 1.15, sizes[-1] * 1.15, _LEFT, width - _RIGHT)
    y = Log(ticks[0], ticks[-1], _TOP + _HEIGHT, _TOP)
    shapes: list[Markup | None] = []
    for tick in ticks:
        shapes.append(rule(_LEFT, y(tick), width - _RIGHT, y(tick)))
        shapes.append(label(_LEFT - 8, y(tick) + 4, _plain(duration(tick)), anchor="end"))
    for size in sizes:
        shapes.append(rule(x(size), y.start, x(size), y.start + 5, "tick"))
        shapes.append(label(x(size), y.start + 19, _size_text(size), anchor="middle"))
    shapes.append(
        label((_LEFT + width - _RIGHT) / 2, y.start + 37, "memory of the process", anchor="middle")
    )
    for number, curve in enumerate(drawn):
        shapes += _curve(curve, x, y, square=number % 2 == 1)
    ends = spaced([y(curve.points[-1][1].median) for curve in drawn], _LINE)
    for curve, at in zip(drawn, ends, strict=True):
        shapes.append(label(width - _RIGHT + 10, at + 4, curve.name, kind=f"peer {curve.mark}"))
    name = f"scaling-{place.place}-{width:.0f}"
    height = _TOP + _HEIGHT + _FOOT
    return drawing(name, width, height, "Downtime over memory", _words(drawn), *shapes)


def _curve(curve: Curve, x: Log, y: Log, *, square: bool) -> list[Markup | None]:
    kind = f"peer {curve.mark}"
    shapes: list[Markup | None] = [
        polyline([(x(size), y(found.median)) for size, found in curve.points], kind)
    ]
    for size, found in curve.points:
        tip = f"{curve.name}, {_size_text(size)}: {spread_text(found, duration)}"
        shapes.append(rule(x(size), y(found.low), x(size), y(found.high), kind))
        shapes.append(dot(x(size), y(found.median), kind, tip=tip, square=square))
    return shapes


def spaced(places: Sequence[float], least: float) -> list[float]:
    """The places, in their order, moved down so far that they are `least` apart."""
    moved = list(places)
    last = float("-inf")
    for index in sorted(range(len(moved)), key=lambda i: moved[i]):
        last = moved[index] = max(moved[index], last + least)
    return moved


def _words(drawn: Sequence[Curve]) -> str:
    said = []
    for curve in drawn:
        (least, first), (most, last) = curve.points[0], curve.points[-1]
        said.append(
            f"{curve.name}: {duration(first.median)} at {_size_text(least)}, "
            f"{duration(last.median)} at {_size_text(most)}."
        )
    return " ".join(said)


def _size_text(size_mb: int) -> str:
    return f"{size_mb} MB" if size_mb < 1024 else f"{size_mb / 1024:g} GB"


def _plain(text: str) -> str:
    return text.replace(".00 ", " ").replace(".0 ", " ")
