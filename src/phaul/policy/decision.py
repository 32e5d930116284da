"""What follows from a prediction: one more round, the cutover, or that it does not converge.

Used on the source after each round.  Pure.

The target met is the cutover.  Else, rounds go on as long as there are time and rounds left, and
as long as the process may well turn out to dirty so little that they shorten the downtime: what is
not known yet is found out by one more round, which is short.  There is no count of rounds without
progress: once the working set is known, a round that would bring nothing is not made.
"""

import math
from dataclasses import dataclass
from typing import Final

from phaul.policy.prediction import Prediction, forecast
from phaul.policy.stop import StopReason, Verdict
from phaul.policy.throttle import needed_share

__all__ = ["Advice", "CutOver", "Decision", "GoOn", "Limits", "NotConverging", "decide"]

_WORTH_IT: Final = 0.95
"""More rounds are no help unless they may make the downtime at least 5 % shorter."""
_AHEAD: Final = 3
"""By so many rounds: what creeps would cost far more bytes than it brings."""


@dataclass(frozen=True)
class Limits:
    """The downtime that was asked for, and the rounds and seconds that are left.

    `strict` is for who would rather slow the process down than cut over late: more rounds have to
    be likely to come to that downtime; that they may shorten it is not enough.
    """

    max_downtime_s: float
    rounds_left: int
    seconds_left: float = math.inf
    strict: bool = False


@dataclass(frozen=True)
class GoOn:
    """One more round."""


@dataclass(frozen=True)
class CutOver:
    """Now is the time."""

    verdict: Verdict


@dataclass(frozen=True)
class Advice:
    """What could be done: `downtime_s` is what a cutover now would cost.

    `share` is how much of its CPU time the process could keep to come to the target, None if no
    share would do.
    """

    downtime_s: float
    share: float | None


@dataclass(frozen=True)
class NotConverging:
    """The target is not to be had by more rounds; what then is the user's to say (`choice`)."""

    verdict: Verdict
    advice: Advice


Decision = GoOn | CutOver | NotConverging


def decide(found: Prediction, limits: Limits) -> Decision:
    """What to do after the round that `found` was predicted after.

    It ends: with no `rounds_left` it is never GoOn.
    """
    target = limits.max_downtime_s
    helps = limits.rounds_left > 0 and limits.seconds_left > 0 and _helps(found, limits)
    sure = found.most_s <= target and not found.far_off
    if found.downtime_s <= target and (sure or not helps):
        asked = f"at most {_ms(target)} was asked for"
        return CutOver(Verdict(StopReason.TARGET, f"{_now(found)}, {asked}"))
    if helps:
        return GoOn()
    beyond = f"{_now(found)}, more than {_ms(target)}"
    if limits.seconds_left <= 0:
        return _stuck(found, limits, StopReason.TIMEOUT, f"{beyond}, and the time is over")
    if limits.rounds_left <= 0:
        most = f"{beyond}, after the most rounds"
        return _stuck(found, limits, StopReason.MOST_ROUNDS, most)
    no_help = f"{beyond}, and another round would not help"
    return _stuck(found, limits, StopReason.NOT_CONVERGING, no_help)


def _helps(found: Prediction, limits: Limits) -> bool:
    """Whether more rounds may well shorten the downtime."""
    if found.working_set is None or found.far_off or not found.proven:
        return True  # that is not known before the next

    left = (limits.rounds_left, limits.seconds_left)
    if limits.strict and found.downtime_s > limits.max_downtime_s:
        likely = forecast(found.working_set.likely, found.pace, found.interval_s, *left)
        return min(likely) <= limits.max_downtime_s
    ahead = (min(limits.rounds_left, _AHEAD), limits.seconds_left)
    now, *later = forecast(found.working_set.at_least, found.pace, found.interval_s, *ahead)
    return min(later) <= _WORTH_IT * now


def _stuck(found: Prediction, limits: Limits, reason: StopReason, why: str) -> NotConverging:
    share = None
    if limits.seconds_left > 0 and limits.rounds_left > 0:
        share = needed_share(found, limits.max_downtime_s, limits.rounds_left, limits.seconds_left)
    return NotConverging(Verdict(reason, why), Advice(found.downtime_s, share))


def _now(found: Prediction) -> str:
    return f"the downtime is now about {_ms(found.downtime_s)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
