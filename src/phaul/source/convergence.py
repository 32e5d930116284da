"""Whether the rounds lead to the downtime that was asked for, and what is done if they do not.

Runs on the source, after each round of the pre-copy.  No I/O: it asks the policy, and the clock.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from phaul.errors import NotConverged
from phaul.facts import AMPLIFIED
from phaul.plan import OnTimeout, Wishes
from phaul.policy import Verdict
from phaul.policy.choice import Cancel, Choice, PostCopy, Throttle, act
from phaul.policy.decision import CutOver, Limits, decide
from phaul.policy.prediction import Costs, Prediction, predict
from phaul.policy.stop import StopReason
from phaul.policy.throttle import LEAST_SHARE
from phaul.report import Round
from phaul.report.units import slowed

__all__ = ["DowntimeJudge"]

_CHOICES: Final[Mapping[OnTimeout, Choice]] = {
    OnTimeout.CANCEL: Choice.CANCEL,
    OnTimeout.CUTOVER: Choice.CUT_OVER,
    OnTimeout.THROTTLE: Choice.THROTTLE,
    OnTimeout.POSTCOPY: Choice.POST_COPY,
}


class DowntimeJudge:
    """Goes on until the predicted downtime is at most `max_downtime_s`, which may be changed.

    When that is not to be had, by the rounds, the time or the working set, the user's wish decides:
    cut over all the same, or so that what is dirty follows (`leaves`), slow it down to `share` of
    its CPU time, or NotConverged.  `begun` is when the migration began.  `can_split`: its huge
    pages could be split, if that were wished.
    """

    def __init__(
        self,
        wishes: Wishes,
        costs: Costs,
        begun: float,
        host: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        can_split: bool = False,
    ) -> None:
        self.max_downtime_s = wishes.max_downtime_s
        self.share = 1.0
        self.leaves = False
        self._wishes = wishes
        self._costs = costs
        self._begun = begun
        self._host = host
        self._clock = clock
        self._can_split = can_split and not wishes.split_huge_pages

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        """See `context.Judge`; raises NotConverged."""
        found = predict(rounds, self._costs, [one.share for one in rounds])
        choice = _CHOICES[self._wishes.on_timeout]
        last = msgspec.structs.replace(
            rounds[-1], dirty_rate=_rate(found, rounds), predicted_downtime_s=found.downtime_s
        )
        limits = Limits(
            self.max_downtime_s,
            self._wishes.max_rounds - len(rounds),
            self._begun + self._wishes.timeout_s - self._clock(),
            strict=choice is Choice.THROTTLE,
        )
        action = act(decide(found, limits), choice, self.share)
        if isinstance(action, Throttle):
            self.share = action.share
        if isinstance(action, Cancel):
            slow = f", {slowed(self.share)} of its CPU time" if self.share < 1 else ""
            raise NotConverged(
                f"the pre-copy did not come to the downtime asked for{slow}: "
                f"{action.verdict.explanation}{_in_vain(choice, self.share, action.verdict)}",
                host=self._host,
                remedy=self._remedy(last, choice, action.downtime_s),
            )
        self.leaves = isinstance(action, PostCopy)
        return last, action.verdict if isinstance(action, CutOver | PostCopy) else None

    def _remedy(self, last: Round, choice: Choice, downtime_s: float) -> str:
        remedy = _remedy(choice, downtime_s)
        if self._can_split and last.amplification is not None and last.amplification >= AMPLIFIED:
            return f"have its huge pages split (--split-huge-pages), {remedy}"
        return remedy


def _rate(found: Prediction, rounds: Sequence[Round]) -> float | None:
    """What it dirties in a second: predicted is in one of its own CPU time."""
    share = rounds[-2].share if len(rounds) > 1 else 1.0
    return None if found.dirty_rate is None else found.dirty_rate * share


def _in_vain(choice: Choice, share: float, verdict: Verdict) -> str:
    """That it was not slowed down as wished, or no further: it would not do."""
    stuck = verdict.reason is StopReason.NOT_CONVERGING
    if choice is Choice.THROTTLE and stuck and share > LEAST_SHARE:
        return f", not even {slowed(LEAST_SHARE)} of its CPU time"
    return ""


def _remedy(choice: Choice, downtime_s: float) -> str:
    slower = "" if choice is Choice.THROTTLE else "slow it down (--on-timeout throttle), "
    return (
        f"allow more (--max-downtime {downtime_s * 1.2:.1f}s), {slower}"
        "move it all the same (--on-timeout cutover), or let the rest follow "
        "(--on-timeout postcopy)"
    )
