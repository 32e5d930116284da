"""What phaul has to come to beside its peers, and whether it did.  Pure.

Judged are medians of `LEAST` turns or more in one run, of moves that lost nothing.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from bench.peers.results import PlaceResults, Results, Sample
from bench.peers.scenarios import PLAIN_MB, Place, Scenario, churning, scaling

__all__ = ["DEMANDS", "LEAST", "Demand", "Judged", "Spread", "demanded", "judge", "spread"]

LEAST: Final = 5

Verdict = Literal["met", "missed", "no figure"]


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles of `turns` values."""

    turns: int
    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of some values; None of none."""
    if not values:
        return None
    turns = len(values)
    if turns == 1:
        values = [*values, *values]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(turns, statistics.median(values), low, high)


@dataclass(frozen=True)
class Side:
    """A contender in a scenario."""

    scenario: Scenario
    contender: str


@dataclass(frozen=True)
class Demand:
    """The downtime of `one` at most `at_most` times that of `other`.

    Without an `other`: phaul's own share of it at most `at_most` seconds.
    """

    what: str
    place: Place
    one: Side
    other: Side | None
    at_most: float

    @property
    def sides(self) -> tuple[Side, ...]:
        """What has to be measured for it."""
        return (self.one,) if self.other is None else (self.one, self.other)


@dataclass(frozen=True)
class Judged:
    """A demand, and what it came to: a ratio, or seconds; `why` says what is missing."""

    demand: Demand
    verdict: Verdict
    value: float | None
    turns: int
    why: str = ""

    @property
    def came(self) -> str:
        """What it came to, "" if that is not known."""
        return "" if self.value is None else _amount(self.demand, self.value)

    @property
    def limit(self) -> str:
        """What it may come to."""
        return _amount(self.demand, self.demand.at_most)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.verdict}: {self.demand.what}: {self.why}"
        return (
            f"{self.verdict}: {self.demand.what}: {self.came}, at most {self.limit}; "
            f"medians of {self.turns} turns"
        )


def _amount(demand: Demand, value: float) -> str:
    return f"{value * 1e3:.1f} ms" if demand.other is None else f"{value:.2f} times"


def _growth(way: str, place: Place, contender: str) -> Demand:
    where = "natively" if place == "native" else "in a guest"
    small, large = (Side(scaling(size, place), contender) for size in (PLAIN_MB, 2048))
    what = f"{way} of 2 GB beside 256 MB with the same working set, {where}"
    return Demand(what, place, large, small, 1.3)


_NATIVE_GB: Final = scaling(1024, "native")
_USUAL: Final = churning(2000, "guest")

DEMANDS: Final = (
    Demand(
        "stop and copy of 1 GB, natively: lazily restored beside fully",
        "native",
        Side(_NATIVE_GB, "phaul"),
        Side(_NATIVE_GB, "phaul full"),
        0.5,
    ),
    Demand(
        "1 GB, natively: post-copy beside stop and copy, fully restored",
        "native",
        Side(_NATIVE_GB, "post-copy"),
        Side(_NATIVE_GB, "phaul full"),
        0.2,
    ),
    Demand(
        "pre-copy of 256 MB at 2,000 pages/s, in a guest: beside the original's rule",
        "guest",
        Side(_USUAL, "phaul"),
        Side(_USUAL, "original"),
        0.3,
    ),
    Demand(
        "pre-copy of 256 MB at 2,000 pages/s, in a guest: beside stop and copy by hand",
        "guest",
        Side(_USUAL, "phaul"),
        Side(_USUAL, "by hand"),
        0.15,
    ),
    _growth("pre-copy", "guest", "phaul"),
    _growth("post-copy", "native", "post-copy"),
    Demand(
        "phaul's own share of the downtime, 1 GB, natively",
        "native",
        Side(_NATIVE_GB, "phaul"),
        None,
        0.015,
    ),
)


def demanded(demands: Iterable[Demand], place: Place) -> tuple[Scenario, ...]:
    """The scenarios that the demands need in a place, each with those who are judged in it."""
    needed: dict[Scenario, list[str]] = {}
    for side in (s for demand in demands if demand.place == place for s in demand.sides):
        names = needed.setdefault(side.scenario, [])
        if side.contender not in names:
            names.append(side.contender)
    return tuple(
        msgspec.structs.replace(scenario, contenders=tuple(names))
        for scenario, names in needed.items()
    )


def judge(demand: Demand, results: Results) -> Judged:
    """Whether it is met by what was measured."""
    place = results.place(demand.place)
    if place is None:
        return Judged(demand, "no figure", None, 0, f"nothing was measured: {demand.place}")
    medians, turns = [], []
    for side in demand.sides:
        values = _values(place, side, own=demand.other is None)
        if len(values) < LEAST:
            why = f"{side.contender}, {side.scenario}: {len(values)} turns of {LEAST}"
            return Judged(demand, "no figure", None, len(values), why)
        medians.append(statistics.median(values))
        turns.append(len(values))
    value = medians[0] / medians[1] if len(medians) > 1 else medians[0]
    return Judged(demand, "met" if value <= demand.at_most else "missed", value, min(turns))


def _values(place: PlaceResults, side: Side, *, own: bool) -> list[float]:
    samples: Iterable[Sample] = place.samples(side.scenario, side.contender)
    found = [s.own_s if own else s.gap_s for s in samples if not s.error]
    return [value for value in found if value is not None]
