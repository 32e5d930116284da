"""The comparison as tables in Markdown; see `bench.policy.__main__`."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bench.policy.rules import GOALS, RULES, Compared, Stop, compare
from bench.policy.scenarios import SYNTHETIC, recorded
from bench.policy.throttling import throttled

__all__ = ["DOCUMENT", "NEAR", "compare_all", "replaced", "share_near", "summary", "tables"]

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "policy.md"
NEAR: Final = 1.25
"""A downtime of at most so many times the oracle's is near it."""
_BEGIN: Final = "<!-- Made by `python -m bench.policy --write`; changes here are lost. -->\n"
_END: Final = "<!-- The end of what is made. -->\n"


def share_near(compared: Iterable[Compared], rule: str, goal: float) -> float:
    """The share of the processes on which `rule` comes near the oracle's downtime."""
    near = [_ratio(one, rule, goal) <= NEAR for one in compared]
    return sum(near) / len(near)


def _ratio(one: Compared, rule: str, goal: float) -> float:
    return one.stops[rule, goal].downtime_s / one.stops["oracle", goal].downtime_s


def replaced(page: str, compared: Sequence[Compared]) -> str:
    """The page with the tables of what was compared."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{tables(compared)}\n{_END}{after}"


def compare_all() -> list[Compared]:
    """What the page compares: the made up and the recorded processes."""
    return compare([*SYNTHETIC, *recorded()])


def tables(compared: Sequence[Compared]) -> str:
    """All tables, as the page has them."""
    lines = [
        *("### In all", ""),
        *summary(compared),
        *("", "### At most 300 ms", ""),
        *_each(compared, list(RULES), GOALS[0]),
        *("", "### As short as can be", ""),
        *_each(compared, ["phaul", "oracle"], GOALS[1]),
        *("", "### Slowed down", ""),
        *_slowed(compared),
    ]
    return "\n".join(lines)


def summary(compared: Sequence[Compared]) -> list[str]:
    """For each rule how near it comes to the oracle, and what that costs."""
    lines = [
        "| rule | goal | near the oracle | its downtimes: the median, the worst | over 300 ms "
        "| rounds | sent |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for goal in GOALS:
        for rule in RULES:
            ratios = [_ratio(one, rule, goal) for one in compared]
            stops = [one.stops[rule, goal] for one in compared]
            over = sum(stop.downtime_s > GOALS[0] for stop in stops)
            lines.append(
                f"| {rule} | {_goal(goal)} | {share_near(compared, rule, goal):.0%} "
                f"| {statistics.median(ratios):.2f}, {max(ratios):.2f} times "
                f"| {over} of {len(stops)} "
                f"| {statistics.mean(stop.rounds for stop in stops):.1f} "
                f"| {statistics.mean(stop.sent for stop in stops):.2f} |"
            )
    return lines


def _goal(goal: float) -> str:
    return "300 ms" if goal == GOALS[0] else "the shortest"


def _each(compared: Sequence[Compared], rules: Sequence[str], goal: float) -> list[str]:
    lines = [
        f"| process | {' | '.join(rules)} |",
        f"| --- |{' --- |' * len(rules)}",
    ]
    for one in compared:
        cells = (_cell(one.stops[rule, goal]) for rule in rules)
        lines.append(f"| {one.scenario.name} | {' | '.join(cells)} |")
    return lines


def _cell(stop: Stop) -> str:
    return f"{stop.downtime_s * 1e3:.0f}, {stop.rounds}, {stop.sent:.1f}"


def _slowed(compared: Sequence[Compared]) -> list[str]:
    lines = [
        "| process | not slowed down | slowed down | its share of CPU then | rounds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in compared:
        stop = one.stops["phaul", GOALS[0]]
        if stop.downtime_s <= GOALS[0]:
            continue
        rate = one.run.costs.dirty_rate
        assert rate is not None
        slow = throttled(one.scenario, rate, GOALS[0])
        result = f"{slow.downtime_s * 1e3:.0f} ms" if slow.moved else "given up"
        lines.append(
            f"| {one.scenario.name} | {stop.downtime_s * 1e3:.0f} ms | {result} "
            f"| {slow.share:.0%} | {slow.rounds} |"
        )
    return lines
