"""What a cutover right now would cost, predicted from the rounds so far, and what more would bring.

Used on the source after each round.  Pure: all that it rests on is given to it.

    downtime = what is dirty / bandwidth  +  the restore  +  what every dump costs

What is dirty: what the process dirties in the time of the last round, by the working set that
explains all rounds (`working_set`), and all shared memory, which only the final dump sends.  A
restore in full reads all memory while the process is down, a lazy one when it runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from phaul.policy.pace import Measured, Pace, gap, measure
from phaul.policy.working_set import Sample, WorkingSet, fit

__all__ = [
    "ASSUMED_BANDWIDTH",
    "Costs",
    "Prediction",
    "expect_rounds",
    "forecast",
    "predict",
    "stop_and_copy",
]

ASSUMED_BANDWIDTH: Final = 110e6
"""Bytes a second, before anything was sent: what is left of 1 Gbit/s."""

_FIXED_S: Final = 0.05
"""Every cutover: natively, a tiny process is down for 40 to 60 ms."""

_LAZY_S: Final = 0.04
"""A lazy restore: CRIU's daemon starts, and the page maps are told anew."""

_FREEZES: Final = 3.0
"""A final dump and the kill cost about three times what the freeze of a small pre-dump does."""

_FAR: Final = 5.0
"""What happens in so many times an interval is not known from that one."""


@dataclass(frozen=True)
class Costs:
    """What is known beforehand: bytes, and bytes a second.

    `restore_rate` is how fast the destination fills memory, `lazy` that it may do so when the
    process runs.  `dirty_rate` is preflight's
    measurement, None where there was none, and `dirty_s` for how long it was measured.
    """

    memory_bytes: int
    shared_bytes: int
    restore_rate: float
    dirty_rate: float | None = None
    bandwidth: float = ASSUMED_BANDWIDTH
    dirty_s: float = 1.0
    lazy: bool = False

    @property
    def full_restore_s(self) -> float:
        """The restore of all memory."""
        return self.memory_bytes / max(self.restore_rate, 1.0)

    @property
    def restores_lazily(self) -> bool:
        """Whether the shorter restore is the lazy one."""
        return self.lazy and self.full_restore_s > _LAZY_S

    @property
    def restore_s(self) -> float:
        """The restore, as far as the process waits for it."""
        shared = self.shared_bytes / max(self.restore_rate, 1.0)
        return _LAZY_S + shared if self.restores_lazily else self.full_restore_s


@dataclass(frozen=True)
class Prediction:
    """Seconds, and bytes a second; `dirty_rate` is None as long as nothing tells it.

    `interval_s` is how long the process has run since the last round found what was dirty.
    `working_set` is None with `dirty_rate`; then all memory counts as dirty.  `far_off` says that
    no interval was seen that is nearly as long: preflight's glance at a process that is busy once a
    second tells little of the ten seconds of a first round.
    """

    downtime_s: float
    bandwidth: float
    dirty_rate: float | None
    interval_s: float
    pace: Pace
    working_set: WorkingSet | None
    far_off: bool = False
    proven: bool = False

    @property
    def most_s(self) -> float:
        """The downtime if the process dirties as much as it well may."""
        if self.working_set is None:
            return self.downtime_s
        most = self.pace.downtime_s(self.working_set.at_most(self.interval_s))
        return max(most, self.downtime_s)  # the mean of few that are large may be beyond it


def predict(
    rounds: Sequence[Measured], costs: Costs, shares: Sequence[float] | None = None
) -> Prediction:
    """What a cutover after these rounds, at least one, would cost.

    `shares` says for each round how much of its CPU time the process had in it; None: all.
    """
    shares = shares or [1.0] * len(rounds)
    pace = measure(rounds, costs.bandwidth)
    fixed = _FIXED_S + _FREEZES * min(r.frozen_s for r in rounds) + costs.restore_s
    fixed += costs.shared_bytes / pace.bandwidth
    pace = replace(pace, share=shares[-1], cutover_s=fixed)
    last = rounds[-1]
    interval = max(last.seconds + gap(rounds) - last.frozen_s, 0.0) * shares[-1]
    samples = _samples(rounds, costs, shares)
    memory = max(costs.memory_bytes, *(r.sent_bytes for r in rounds))  # it may have grown
    if not samples:
        downtime = pace.downtime_s(memory)
        return Prediction(downtime, pace.bandwidth, None, interval, pace, None)
    working_set = fit(samples, memory)
    newest = samples[-1]
    return Prediction(
        pace.downtime_s(working_set.likely(interval)),
        pace.bandwidth,
        newest.dirty_bytes / max(newest.seconds, 1e-3),
        interval,
        pace,
        working_set,
        far_off=interval > _FAR * max(sample.seconds for sample in samples),
        proven=len(rounds) > 1,
    )


def _samples(rounds: Sequence[Measured], costs: Costs, shares: Sequence[float]) -> list[Sample]:
    samples = []
    if costs.dirty_rate is not None:
        samples.append(Sample(costs.dirty_s, costs.dirty_rate * costs.dirty_s))
    for before, this, share in zip(rounds, rounds[1:], shares, strict=False):
        # It is unmarked at the end of a freeze, and looked at in the next.
        ran = (this.begun_s - before.begun_s - before.frozen_s) * share
        if ran > 0:
            samples.append(Sample(ran, this.sent_bytes))
    return samples


def forecast(
    dirty: Callable[[float], float], pace: Pace, interval_s: float, rounds: int, seconds: float
) -> list[float]:
    """The downtime now, then after each of so many more rounds that begin within `seconds`.

    `dirty` tells the bytes that are dirty after a time.  Each round sends what was dirtied in the
    time of the one before.
    """
    found: list[float] = []
    spent = 0.0
    for _ in range(rounds + 1):
        left = dirty(interval_s)
        found.append(pace.downtime_s(left))
        if spent > seconds:
            break
        interval_s = pace.runs_s(left)
        spent += pace.round_s + left / pace.bandwidth
    return found


def stop_and_copy(costs: Costs) -> float:
    """The downtime without any round, in seconds."""
    memory = costs.memory_bytes + costs.shared_bytes
    return memory / max(costs.bandwidth, 1.0) + costs.restore_s + _FIXED_S


def expect_rounds(costs: Costs, max_downtime_s: float, max_rounds: int) -> tuple[int, float, float]:
    """How many rounds, how many seconds, and which downtime: as if the dirty rate stayed as it is.

    Each round sends what was dirtied in the one before, so they shrink by dirty rate / bandwidth.
    """
    rate = costs.dirty_rate or 0.0
    dirty, seconds, rounds = float(costs.memory_bytes), 0.0, 0
    fixed = costs.restore_s + costs.shared_bytes / costs.bandwidth + 2 * _FIXED_S
    downtime = fixed + dirty / costs.bandwidth
    while rounds < max_rounds:
        took = dirty / costs.bandwidth + _FIXED_S
        seconds += took
        rounds += 1
        dirty = min(rate * took, float(costs.memory_bytes))
        before, downtime = downtime, fixed + dirty / costs.bandwidth
        if downtime <= max_downtime_s or downtime > before * 0.9:
            break
    return rounds, seconds + downtime, downtime
