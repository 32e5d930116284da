"""Whether the rounds lead to the downtime that was asked for, and what is done if they do not.

Runs on the source, after each round of the pre-copy.  No I/O.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from phaul.errors import NotConverged
from phaul.plan import OnTimeout, Wishes
from phaul.policy import StopReason, Verdict
from phaul.policy.prediction import Costs, Prediction, predict
from phaul.report import Round

__all__ = ["DowntimeJudge"]

_WORTH_IT = 0.95
"""Two rounds in a row that do not make the prediction at least 5 % better are no progress."""


class DowntimeJudge:
    """Goes on until the predicted downtime is at most `max_downtime_s`, which may be changed.

    When that is not to be had, by the rounds, the time or the trend, the user's wish decides: cut
    over all the same, or NotConverged.  `begun` is when the migration began.
    """

    def __init__(
        self,
        wishes: Wishes,
        costs: Costs,
        begun: float,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_downtime_s = wishes.max_downtime_s
        self._wishes = wishes
        self._costs = costs
        self._begun = begun
        self._host = host
        self._clock = clock
        self._predictions: list[float] = []

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        """See `context.Judge`; raises NotConverged."""
        found = predict(rounds, self._costs)
        self._predictions.append(found.downtime_s)
        last = msgspec.structs.replace(
            rounds[-1], dirty_rate=found.dirty_rate, predicted_downtime_s=found.downtime_s
        )
        verdict = self._verdict(found, len(rounds))
        if (
            verdict is not None
            and verdict.reason is not StopReason.TARGET
            and self._wishes.on_timeout is OnTimeout.CANCEL
        ):
            raise NotConverged(
                f"the pre-copy did not come to the downtime asked for: {verdict.explanation}",
                host=self._host,
                remedy=(
                    f"allow more (--max-downtime {found.downtime_s * 1.2:.1f}s), "
                    "or move it all the same (--on-timeout cutover)"
                ),
            )
        return last, verdict

    def _verdict(self, found: Prediction, count: int) -> Verdict | None:
        target = self.max_downtime_s
        now = f"the downtime is now about {_ms(found.downtime_s)}"
        if found.downtime_s <= target:
            return Verdict(StopReason.TARGET, f"{now}, at most {_ms(target)} was asked for")
        beyond = f"{now}, more than {_ms(target)}"
        if self._clock() - self._begun >= self._wishes.timeout_s:
            return Verdict(
                StopReason.TIMEOUT, f"{beyond}, and {self._wishes.timeout_s:g} s are over"
            )
        if count >= self._wishes.max_rounds:
            return Verdict(StopReason.MOST_ROUNDS, f"{beyond}, after {count} rounds")
        if count > 3 and min(self._predictions[-2:]) > _WORTH_IT * min(self._predictions[:-2]):
            return Verdict(StopReason.NOT_CONVERGING, f"{beyond}, and no longer falls")
        return None


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
