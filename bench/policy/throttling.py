"""What it comes to when a process that does not converge is slowed down, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.policy.rules import MOST_ROUNDS
from bench.policy.simulate import GLANCE_S, Round, Scenario, simulate
from phaul.policy.choice import Cancel, Choice, Throttle, act
from phaul.policy.decision import CutOver, Limits, decide
from phaul.policy.prediction import predict

__all__ = ["Outcome", "throttled"]


@dataclass(frozen=True)
class Outcome:
    """How it ended: with the cutover or given up, after so many rounds, at which share of CPU."""

    moved: bool
    rounds: int
    share: float
    downtime_s: float


def throttled(scenario: Scenario, dirty_rate: float, max_downtime_s: float) -> Outcome:
    """Move it with the choice to slow it down; `dirty_rate` is what preflight measured."""
    shares: list[float] = []
    ends: list[tuple[int, bool]] = []
    costs = scenario.costs.__class__(
        scenario.costs.memory_bytes,
        scenario.costs.shared_bytes,
        scenario.costs.restore_rate,
        dirty_rate,
        dirty_s=GLANCE_S,
    )

    def share(rounds: Sequence[Round]) -> float:
        now = shares[-1] if shares else 1.0
        if rounds and not ends:
            found = predict(rounds, costs, shares)
            limits = Limits(max_downtime_s, MOST_ROUNDS - len(rounds), strict=True)
            action = act(decide(found, limits), Choice.THROTTLE, now)
            if isinstance(action, Throttle):
                now = action.share
            elif isinstance(action, CutOver | Cancel):
                ends.append((len(rounds), isinstance(action, CutOver)))
        shares.append(now)
        return now

    # One more than the most: the share is asked for before each, and so after the last of them too.
    run = simulate(scenario, MOST_ROUNDS + 1, share)
    count, moved = ends[0]
    return Outcome(moved, count, shares[count - 1], run.rounds[count - 1].downtime_s)
