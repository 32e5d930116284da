"""What is done when the pre-copy does not converge: what the user chose, if it can be.

Used on the source after each round.  Pure.
"""

from dataclasses import dataclass
from enum import Enum

from phaul.policy.decision import CutOver, Decision, GoOn, NotConverging
from phaul.policy.stop import Verdict
from phaul.policy.throttle import next_share

__all__ = ["Action", "Cancel", "Choice", "PostCopy", "Throttle", "act"]


class Choice(Enum):
    """What the user wants to be done when the downtime asked for is not to be had."""

    CANCEL = "cancel"
    CUT_OVER = "cutover"
    THROTTLE = "throttle"
    POST_COPY = "postcopy"


@dataclass(frozen=True)
class Throttle:
    """One more round, with the process slowed down to `share` of its CPU time."""

    share: float
    verdict: Verdict


@dataclass(frozen=True)
class PostCopy:
    """Cut over now, and let what is dirty follow."""

    verdict: Verdict


@dataclass(frozen=True)
class Cancel:
    """Give it up; `downtime_s` is the downtime that could be had."""

    verdict: Verdict
    downtime_s: float


Action = GoOn | CutOver | Throttle | PostCopy | Cancel


def act(decision: Decision, choice: Choice, share: float = 1.0) -> Action:
    """What to do; `share` is how much of its CPU time the process has now.

    To slow it down further needs a share that would do, and time: without it is given up.
    """
    if not isinstance(decision, NotConverging):
        return decision
    verdict, advice = decision.verdict, decision.advice
    if choice is Choice.CUT_OVER:
        return CutOver(verdict)
    if choice is Choice.POST_COPY:
        return PostCopy(verdict)
    if choice is Choice.THROTTLE and advice.share is not None:
        return Throttle(next_share(share, advice.share), verdict)
    return Cancel(verdict, advice.downtime_s)
