"""What plots are made of: scales, ticks, and the few shapes that are needed.  Pure.

Coordinates are CSS pixels of a drawing that is shown in its own size, or smaller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from phaul.report.html.markup import Markup, el

__all__ = [
    "Linear",
    "Log",
    "byte_ticks",
    "dot",
    "drawing",
    "label",
    "nice_ticks",
    "polyline",
    "rect",
    "rule",
    "second_ticks",
]


@dataclass(frozen=True)
class Linear:
    """Maps `low`..`high` to `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` lies, kept inside."""
        if self.high <= self.low:
            return self.start
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


@dataclass(frozen=True)
class Log:
    """As Linear, by the logarithm; what is 0 or less lies at the start."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` lies, kept inside."""
        if value <= 0 or self.low <= 0 or self.high <= self.low:
            return self.start
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def nice_ticks(high: float, most: int) -> list[float]:
    """0 and up to `most` round numbers, up to `high`."""
    if not 1e-9 <= high <= 1e15:
        return [0.0]
    raw = high / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
    return [step * i for i in range(int(high / step + 1e-9) + 1)]


def byte_ticks(values: Sequence[float], most: int = 5) -> list[float]:
    """Powers of two from 1 to 2**60, for a Log scale, that reach around all `values` there."""
    positive = [v for v in values if v > 0 and math.isfinite(v)]
    if not positive:
        return [1.0, 1024.0]
    low = math.floor(math.log2(min(max(min(positive), 1), 2**60)))
    high = math.ceil(math.log2(min(max(max(positive), 1), 2**60)))
    return _powers(2, low, high, most, (1, 2, 5, 10, 20))


def second_ticks(values: Sequence[float], most: int = 5) -> list[float]:
    """Powers of ten from 1e-6 to 1e9, for a Log scale, that reach around all `values` there."""
    positive = [v for v in values if v > 0 and math.isfinite(v)]
    if not positive:
        return [0.001, 1.0]
    low = math.floor(math.log10(min(max(min(positive), 1e-6), 1e9)) + 1e-9)
    high = math.ceil(math.log10(min(max(max(positive), 1e-6), 1e9)) - 1e-9)
    return _powers(10, low, high, most, (1, 2, 3, 5))


def _powers(base: int, low: int, high: int, most: int, steps: Sequence[int]) -> list[float]:
    high = max(high, low + 1)
    step = next((s for s in steps if (high - low) / s <= most - 1), steps[-1])
    low = math.floor(low / step) * step
    return [float(base) ** e for e in range(low, high + step, step) if e - step < high]


def drawing(
    name: str, width: float, height: float, title: str, description: str, *shapes: Markup | None
) -> Markup:
    """A drawing that says what it shows; `name` is its id on the page."""
    return el(
        "svg",
        el("title", title, id=f"{name}-title"),
        el("desc", description, id=f"{name}-desc"),
        *shapes,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def label(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "soft") -> Markup:
    """A text with its baseline at `y`."""
    return el("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def rule(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> Markup:
    """A straight line."""
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def rect(
    x: float, y: float, width: float, height: float, kind: str, *, tip: str = "", round_: float = 2
) -> Markup:
    """A box, with a text that is shown when it is pointed at."""
    return el(
        "rect",
        el("title", tip) if tip else None,
        x=x,
        y=y,
        width=max(width, 0.0),
        height=max(height, 0.0),
        rx=min(round_, width / 2 if width > 0 else 0),
        class_=kind,
    )


_SQUARE: Final = 3.6


def dot(x: float, y: float, kind: str, *, tip: str = "", square: bool = False) -> Markup:
    """A point; `square` ones stand on their corner, to be told apart without colours."""
    title = el("title", tip) if tip else None
    if not square:
        return el("circle", title, cx=x, cy=y, r=3.4, class_=kind)
    side = _SQUARE * 2
    return el(
        "rect",
        title,
        x=x - _SQUARE,
        y=y - _SQUARE,
        width=side,
        height=side,
        transform=f"rotate(45 {x:.2f} {y:.2f})",
        class_=kind,
    )


def polyline(points: Sequence[tuple[float, float]], kind: str) -> Markup | None:
    """A line through the points, if there are two."""
    if len(points) < 2:
        return None
    return el("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=kind)
