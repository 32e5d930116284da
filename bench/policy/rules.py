"""The rules that are compared: each says after which round of a run it stops.

The numbers of the others' rules are theirs: the original is the Go library of 2017 (`phaul`, in
CRIU's repository), p.haul is its Python predecessor (github.com/checkpoint-restore/p.haul), and
Incus took its rule over from LXD (`migration.incremental.memory.goal` and `.iterations`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.policy.simulate import Round, Run, Scenario, simulate
from phaul.policy import StopRule
from phaul.policy.decision import GoOn, Limits, decide
from phaul.policy.prediction import predict

__all__ = ["GOALS", "MOST_ROUNDS", "RULES", "Compared", "Rule", "Stop", "compare"]

MOST_ROUNDS: Final = 16
"""The default of `--max-rounds`."""

GOALS: Final = (0.3, 0.001)
"""The downtimes asked for, in seconds: the default, and one so short that the least will do."""

Rule = Callable[[Run, float], int]
"""From a run and the downtime asked for, in seconds, to the number of rounds that are made."""


def policy(run: Run, max_downtime_s: float) -> int:
    """The rounds that phaul's policy makes."""
    for count in range(1, len(run.rounds)):
        found = predict(run.rounds[:count], run.costs)
        if not isinstance(decide(found, Limits(max_downtime_s, MOST_ROUNDS - count)), GoOn):
            return count
    return len(run.rounds)


def _first(run: Run, stops: Callable[[int, Round, Round | None], bool]) -> int:
    before = None
    for count, this in enumerate(run.rounds, 1):
        if stops(count, this, before):
            return count
        before = this
    return len(run.rounds)


def original(run: Run, max_downtime_s: float) -> int:
    """Few pages, 32 more than before, or 8 rounds.  The first round is compared with nothing.

    So it grows, and is the last.
    """
    return _first(
        run,
        lambda count, this, before: (
            this.pages < 64 or this.pages - (before.pages if before else 0) >= 32 or count > 8
        ),
    )


def mended(run: Run, max_downtime_s: float) -> int:
    """The original's rule as its authors meant it, which is phaul's for embedders."""
    rule = StopRule()
    return _first(
        run,
        lambda count, this, before: rule.decide([r.pages for r in run.rounds[:count]]) is not None,
    )


def p_haul(run: Run, max_downtime_s: float) -> int:
    """At most 64 pages, over 10 % more than before, or 9 rounds."""
    return _first(
        run,
        lambda count, this, before: (
            this.pages <= 64
            or (before is not None and (this.pages - before.pages) * 100 > 10 * before.pages)
            or count > 8
        ),
    )


def incus(run: Run, max_downtime_s: float) -> int:
    """Over 70 % of the pages were clean, or 10 rounds."""
    return _first(
        run,
        lambda count, this, before: (
            100 - 100 * this.pages // (this.pages + this.skipped_pages) > 70 or count >= 10
        ),
    )


def oracle(run: Run, max_downtime_s: float) -> int:
    """Knows the future: the first stop that meets the target, else the one of least downtime."""
    downtimes = [r.downtime_s for r in run.rounds]
    for count, downtime in enumerate(downtimes, 1):
        if downtime <= max_downtime_s:
            return count
    return downtimes.index(min(downtimes)) + 1


RULES: Final[Mapping[str, Rule]] = {
    "phaul": policy,
    "original": original,
    "original, mended": mended,
    "p.haul": p_haul,
    "Incus": incus,
    "oracle": oracle,
}


@dataclass(frozen=True)
class Stop:
    """Where a rule stops: after so many rounds, `sent` is in times the memory."""

    rounds: int
    downtime_s: float
    sent: float


@dataclass(frozen=True)
class Compared:
    """What all rules come to on one process, for each rule's name and each goal."""

    scenario: Scenario
    run: Run
    stops: Mapping[tuple[str, float], Stop]


def compare(scenarios: Sequence[Scenario]) -> list[Compared]:
    """Simulate each, and have all rules look at the same rounds."""
    found = []
    for scenario in scenarios:
        run = simulate(scenario, MOST_ROUNDS)
        stops = {
            (name, goal): _stop(scenario, run, rule(run, goal))
            for name, rule in RULES.items()
            for goal in GOALS
        }
        found.append(Compared(scenario, run, stops))
    return found


def _stop(scenario: Scenario, run: Run, count: int) -> Stop:
    made = run.rounds[:count]
    sent = sum(r.pages for r in made) + made[-1].final_pages
    return Stop(count, made[-1].downtime_s, sent / (scenario.pages + scenario.shared))
