"""The results of `bench.peers` in numbers: as Markdown, for a terminal and for the docs.  Pure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.peers.demands import DEMANDS, LEAST, Spread, judge, spread
from bench.peers.results import PlaceResults, Results, Row, Sample
from bench.peers.scenarios import scales
from phaul.report.units import duration, size

__all__ = [
    "DOCUMENT",
    "HEADS",
    "MADE",
    "NAMES",
    "PICTURES",
    "cells",
    "details",
    "facts_text",
    "lost",
    "markdown",
    "of_each",
    "replaced",
    "spread_text",
]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "peers.md"
MADE: Final = Path(__file__).parent / "results.json"
"""The run that the docs show."""
PICTURES: Final = "images/peers-{}.svg"
"""Where the plots lie, from the docs."""
NAMES: Final = {"native": "Natively: no dirty tracking, so stop and copy", "guest": "In a guest"}
HEADS: Final = (
    "",
    "turns",
    "downtime",
    "in all",
    "over the link",
    "CPU",
    "rounds",
    "lazily",
    "phaul's own",
)
_BEGIN: Final = "<!-- Made by `python -m bench.peers --write`; changes here are lost. -->\n"
_END: Final = "<!-- The end of what is made. -->\n"
_NONE: Final = "\u2013"


def of_each(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> Spread | None:
    """The spread of a figure over the moves that lost nothing."""
    values = [of(sample) for sample in samples if not sample.error]
    return spread([value for value in values if value is not None])


def lost(samples: Sequence[Sample]) -> int:
    """How many moves failed, or lost something."""
    return sum(bool(sample.error) for sample in samples)


def spread_text(found: Spread | None, said: Callable[[float], str]) -> str:
    """`210 ms (198 ms to 240 ms)`: the median, and the quartiles if there are enough values."""
    if found is None:
        return _NONE
    if found.turns < LEAST:
        return said(found.median)
    return f"{said(found.median)} ({said(found.low)} to {said(found.high)})"


def cells(contender: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    """A line of a scenario's table; see HEADS."""
    failed = lost(samples)
    turns = str(len(samples) - failed) + (f", {failed} failed" if failed else "")
    rounds = of_each(samples, lambda s: s.rounds)
    return (
        contender,
        turns,
        spread_text(of_each(samples, lambda s: s.gap_s), duration),
        spread_text(of_each(samples, lambda s: s.total_s), duration),
        _median(of_each(samples, lambda s: s.bytes), size),
        _median(of_each(samples, lambda s: s.cpu_s), duration),
        f"{rounds.median:g}" if rounds else _NONE,
        f"{sum(sample.lazy for sample in samples)}" if rounds else _NONE,
        _median(of_each(samples, lambda s: s.own_s), duration),
    )


def details(row: Row) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Tables with their titles: phaul's downtime by its parts, and its own share by its places."""
    found = [
        ("The parts of phaul's downtime", _parts(row, lambda s: s.parts)),
        ("phaul's own share, by what went before", _parts(row, lambda s: s.own)),
    ]
    return [(f"{title}, {row.scenario}", lines) for title, lines in found if lines]


def _parts(row: Row, of: Callable[[Sample], dict[str, float]]) -> list[tuple[str, ...]]:
    """Medians, a line for each part and a column for each contender that has any, with heads."""
    columns = {
        name: whole
        for name, samples in row.samples.items()
        if (whole := [of(sample) for sample in samples if of(sample) and not sample.error])
    }
    names = dict.fromkeys(part for whole in columns.values() for each in whole for part in each)
    lines = [
        (part, *(_middle([each.get(part, 0.0) for each in whole]) for whole in columns.values()))
        for part in names
    ]
    return [("", *columns), *lines] if lines else []


def _middle(values: Sequence[float]) -> str:
    return _median(spread(values), duration)


def _median(found: Spread | None, said: Callable[[float], str]) -> str:
    return _NONE if found is None else said(found.median)


def facts_text(place: PlaceResults) -> str:
    """Where it was measured, in a sentence."""
    return ", ".join(f"{name} {said}" for name, said in place.facts.items())


def replaced(page: str, results: Results | None) -> str:
    """The page with what was measured; None if nothing was yet."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    made = markdown(results, PICTURES) if results else "No run is recorded yet.\n"
    return f"{before}{_BEGIN}{made}{_END}{after}"


def markdown(results: Results, pictures: str = "") -> str:
    """All of it; `pictures` is where the plots are from there, with {} for the place."""
    lines = [f"Measured on {results.when}.", "", *_demands(results)]
    for place in results.places:
        lines += ["", f"### {NAMES[place.place]}", "", f"{facts_text(place)}."]
        if pictures and any(scales(row.scenario, place.place) for row in place.rows):
            lines += ["", f"![Downtime over memory]({pictures.format(place.place)})"]
        for row in place.rows:
            heads_and_lines = [HEADS, *(cells(*each) for each in row.samples.items())]
            lines += ["", f"**{row.scenario}**", "", *_table(heads_and_lines)]
        for row in place.rows:
            for title, shown in details(row):
                lines += ["", f"{title}:", "", *_table(shown)]
        if place.left_out:
            left = "; ".join(f"{one.what} ({one.why})" for one in place.left_out)
            lines += ["", f"Left out: {left}."]
    return "\n".join(lines) + "\n"


def _demands(results: Results) -> list[str]:
    lines = ["| what | came to | at most | |", "| --- | --- | --- | --- |"]
    for demand in DEMANDS:
        found = judge(demand, results)
        lines.append(
            f"| {demand.what} | {found.came or _NONE} | {found.limit} "
            f"| {found.verdict}{': ' + found.why if found.why else ''} |"
        )
    return lines


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = (f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
    return [head, "|" + " --- |" * len(lines[0]), *rest]
