"""How far a process has to be slowed down for its pre-copy to converge.

Used on the source when more rounds would not help and the user chose this.  Pure.

A process with a share of its CPU time dirties in a time what it dirtied in that share of it before:
D(share * t).  It is slowed down in steps, each the rounds' chance to show that it is enough; what
they then show is in the next prediction.
"""

from dataclasses import replace
from typing import Final

from phaul.policy.prediction import Prediction, forecast

__all__ = ["LEAST_SHARE", "needed_share", "next_share"]

LEAST_SHARE: Final = 0.05
"""A process with less is as good as stopped."""
_STEP: Final = 0.5
"""At most so much of the share that it has is left by one step."""
_SOON: Final = 6
"""Within so many rounds: a process is not kept slow for long."""
_FINENESS: Final = 0.9
"""Shares are tried each so much of the one before."""


def needed_share(
    found: Prediction, max_downtime_s: float, rounds: int, seconds: float
) -> float | None:
    """The largest share, from LEAST_SHARE to what it has now, that is likely to do.

    With it, a few more rounds, at most so many that begin within `seconds`, come to
    `max_downtime_s`.  If none is likely to, one that may: how little a process dirties in a short
    time is not known before it is slow.  None if no share may, as where shared memory or the
    restore alone take longer.
    """
    if found.working_set is None:
        return None
    for dirty in (found.working_set.likely, found.working_set.at_least):
        share = found.pace.share
        while share > LEAST_SHARE:
            share = max(share * _FINENESS, LEAST_SHARE)
            pace = replace(found.pace, share=share)
            downtimes = forecast(dirty, pace, found.interval_s, min(rounds, _SOON), seconds)
            if min(downtimes) <= max_downtime_s:
                return share
    return None


def next_share(now: float, needed: float) -> float:
    """The share after one step from `now` towards `needed`."""
    return max(needed, now * _STEP, LEAST_SHARE)
