"""How much a process dirties in a given time: its writable working set, fitted to what was seen.

Used on the source after each round.  Pure.

Each round sends the pages that were dirtied since the one before, each once however often it was
written.  So what is dirty grows with the time, but ever more slowly: D(t) is concave.  Two points
do not tell how it bends between them, and the next round is far shorter than those before it.  So
no one curve is fitted.  Many are weighed by how well they agree with what was seen, and asked
together:

    D(t) = scale * ((1 - straight) * bend(t / knee) + straight * t),  at most all memory

`bend` is 1 - exp(-x) for writes at random, min(x, 1) for a sweep over the set.  `knee` is the time
in which most of the set is written once.  Where they disagree nobody can know, and `at_least` and
`at_most` are far apart.  Each curve rises and is concave, and so are all together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

__all__ = ["Sample", "WorkingSet", "fit"]

_LEAST_BYTES: Final = 4096.0
"""Nothing dirty at all counts as one page: what is compared are ratios."""
_LEAST_S: Final = 1e-3
_MOST_S: Final = 1e6
_KNEES: Final = tuple(10 ** (power / 2) for power in range(-6, 7))
"""A millisecond to a quarter of an hour, two to the decade: all are as likely beforehand."""
_STRAIGHT: Final = (0.0, 0.1, 0.3, 1.0)
_NOISE: Final = 0.2
"""The standard deviation of ln(bytes) from one interval to the next of a steady process."""
_AGEING: Final = 1.5
"""By how much the variance grows with each round since: processes change."""
_PAGES_OF_NOISE: Final = 4 * _LEAST_BYTES
_NEGLIGIBLE: Final = 1e-3
"""Curves that are so much less likely than the best one have no say."""
_LOW: Final = 0.15
_HIGH: Final = 0.85


@dataclass(frozen=True)
class Sample:
    """So many bytes were dirtied while the process ran for so many seconds."""

    seconds: float
    dirty_bytes: float


@dataclass(frozen=True)
class _Curve:
    bend: Callable[[float], float]
    knee: float
    straight: float
    bent: float
    """What `bend` is at the reference: there every curve of scale 1 is 1."""
    reference: float
    scale: float = 1.0
    weight: float = 1.0

    def __call__(self, seconds: float) -> float:
        bent = self.bend(seconds / self.knee) / self.bent
        line = seconds / self.reference
        return self.scale * ((1 - self.straight) * bent + self.straight * line)


@dataclass(frozen=True)
class WorkingSet:
    """What is dirty, in bytes, after the process ran for `seconds`; see `fit`.

    All three rise with the time, start at 0 and never are more than all memory.
    """

    memory_bytes: float
    curves: tuple[_Curve, ...]

    def likely(self, seconds: float) -> float:
        """The mean of what all curves say."""
        return sum(weight * value for value, weight in self._values(seconds))

    def at_least(self, seconds: float) -> float:
        """It is hardly less."""
        return self._quantile(seconds, _LOW)

    def at_most(self, seconds: float) -> float:
        """It is hardly more."""
        return self._quantile(seconds, _HIGH)

    def _values(self, seconds: float) -> list[tuple[float, float]]:
        seconds = min(max(seconds, 0.0), _MOST_S)
        return [(min(c(seconds), self.memory_bytes), c.weight) for c in self.curves]

    def _quantile(self, seconds: float, share: float) -> float:
        below = 0.0
        values = sorted(self._values(seconds))
        for value, weight in values:
            below += weight
            if below >= share:
                return value
        return values[-1][0]


def fit(samples: Sequence[Sample], memory_bytes: int) -> WorkingSet:
    """The working set that explains `samples`, at least one, the oldest first."""
    reference = _clamped(samples[-1].seconds)
    seen = []
    for age, sample in enumerate(reversed(samples)):
        size = max(sample.dirty_bytes, _LEAST_BYTES)
        variance = _NOISE**2 * (1 + _AGEING * age) + _PAGES_OF_NOISE / size
        seen.append((_clamped(sample.seconds), math.log(size), 1 / variance))
    fitted = [_fitted(curve, seen) for curve in _curves(reference)]
    best = max(likelihood for _, likelihood in fitted)
    weights = [math.exp(likelihood - best) for _, likelihood in fitted]
    kept = [(c, w) for (c, _), w in zip(fitted, weights, strict=True) if w >= _NEGLIGIBLE]
    total = sum(weight for _, weight in kept)
    curves = tuple(replace(curve, weight=weight / total) for curve, weight in kept)
    return WorkingSet(float(memory_bytes), curves)


def _clamped(seconds: float) -> float:
    return min(max(seconds, _LEAST_S), _MOST_S)


def _saturating(x: float) -> float:
    return -math.expm1(-x)


def _sweep(x: float) -> float:
    return min(x, 1.0)


def _curves(reference: float) -> list[_Curve]:
    return [
        _Curve(bend, knee, straight, bend(reference / knee), reference)
        for bend, knee, straight in product((_saturating, _sweep), _KNEES, _STRAIGHT)
    ]


def _fitted(curve: _Curve, seen: Sequence[tuple[float, float, float]]) -> tuple[_Curve, float]:
    """The curve in the scale that suits it best, and the logarithm of how likely it is then."""
    off = [(size - math.log(curve(seconds)), surety) for seconds, size, surety in seen]
    mean = sum(o * surety for o, surety in off) / sum(surety for _, surety in off)
    misses = sum(surety * (o - mean) ** 2 for o, surety in off)
    return replace(curve, scale=math.exp(mean)), -misses / 2
