"""What `bench.peers` measured, as it is kept in results.json.  Pure.

Times are seconds, bytes are bytes.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from bench.peers.scenarios import Place, Scenario

__all__ = ["Facts", "LeftOut", "Line", "PlaceResults", "Results", "Sample", "Taken", "gathered"]

VERSION: Final = 1


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One move.  With an `error` there are no figures: what lost something has none.

    `gap_s` is the victim's: the largest gap of its heartbeat.  `total_s` is the mover's, from its
    start to its end.  `bytes` went over the link.  `cpu_s` took both ends together, the kernel's
    work on the victim's memory with it.  `lazy` is how it was restored.  `own_s` is what of the gap
    is neither CRIU's work nor bytes on the wire, None where that is not known; `own` is the same by
    what went before each stretch.  `parts` are the report's, `steps` the stopwatch's, in the gap.
    """

    gap_s: float = 0.0
    total_s: float = 0.0
    bytes: int = 0
    cpu_s: float = 0.0
    rounds: int = 0
    lazy: bool = False
    own_s: float | None = None
    own: dict[str, float] = {}
    parts: dict[str, float] = {}
    steps: dict[str, float] = {}
    error: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag="facts"):
    """Where it was measured: what of the machine matters, each with its name."""

    facts: dict[str, str]


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """A sample, as soon as there is one."""

    scenario: Scenario
    turn: int
    contender: str
    sample: Sample


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, tag="left-out"):
    """Something that could not be run there, and why."""

    what: str
    why: str


Line = Facts | Taken | LeftOut
"""A line of what the program inside prints."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of a scenario: by contender, in the order of the turns."""

    scenario: Scenario
    samples: dict[str, list[Sample]]


class PlaceResults(msgspec.Struct, frozen=True, kw_only=True):
    """All of a place."""

    place: Place
    facts: dict[str, str]
    rows: list[Row]
    left_out: list[LeftOut]

    def samples(self, scenario: Scenario, contender: str) -> list[Sample]:
        """The samples of a contender in a scenario; none if it did not take part."""
        found = [row for row in self.rows if row.scenario.same == scenario.same]
        return found[0].samples.get(contender, []) if found else []


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run; `when` is its day."""

    version: int = VERSION
    when: str
    places: list[PlaceResults]

    def place(self, name: Place) -> PlaceResults | None:
        """What was measured there."""
        return next((one for one in self.places if one.place == name), None)


def gathered(place: Place, lines: Iterable[Line]) -> PlaceResults:
    """What the lines come to; they may have been cut short."""
    facts: dict[str, str] = {}
    rows: dict[Scenario, dict[str, list[Sample]]] = {}
    left: list[LeftOut] = []
    for line in lines:
        match line:
            case Facts():
                facts |= line.facts
            case Taken():
                samples = rows.setdefault(line.scenario, {})
                samples.setdefault(line.contender, []).append(line.sample)
            case LeftOut():
                left.append(line)
    in_order = [
        Row(scenario=s, samples={n: taken[n] for n in s.contenders if n in taken})
        for s, taken in rows.items()
    ]
    return PlaceResults(place=place, facts=facts, rows=in_order, left_out=left)
