"""What a cutover right now would cost, predicted from the rounds so far.

Used on the source after each round.  Pure: all that it rests on is given to it.

    downtime = what is dirty / bandwidth  +  the restore of all memory  +  what every dump costs

What is dirty: what the process dirties in the time of one round like the last, and all shared
memory, which only the final dump sends.  The restore reads all memory while the process is down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = [
    "ASSUMED_BANDWIDTH",
    "Costs",
    "Measured",
    "Prediction",
    "expect_rounds",
    "predict",
    "stop_and_copy",
]

ASSUMED_BANDWIDTH: Final = 110e6
"""Bytes a second, before anything was sent: what is left of 1 Gbit/s."""

_FIXED_S: Final = 0.05
"""Every cutover: natively, a tiny process is down for 40 to 60 ms."""

_FREEZES: Final = 3.0
"""A final dump and the kill cost about three times what the freeze of a small pre-dump does."""


class Measured(Protocol):
    """A round, as far as a prediction needs it; see `report.Round`."""

    @property
    def sent_bytes(self) -> int:
        """Memory that was sent, in bytes."""

    @property
    def seconds(self) -> float:
        """The whole round."""

    @property
    def begun_s(self) -> float:
        """When it began, after the migration did."""

    @property
    def frozen_s(self) -> float:
        """How long the process stood still for it."""


@dataclass(frozen=True)
class Costs:
    """What is known beforehand: bytes, and bytes a second.

    `restore_rate` is how fast the destination fills memory.  `dirty_rate` is preflight's
    measurement, None where there was none.
    """

    memory_bytes: int
    shared_bytes: int
    restore_rate: float
    dirty_rate: float | None = None
    bandwidth: float = ASSUMED_BANDWIDTH

    @property
    def restore_s(self) -> float:
        """The restore of all memory."""
        return self.memory_bytes / max(self.restore_rate, 1.0)


@dataclass(frozen=True)
class Prediction:
    """Seconds, and bytes a second; `dirty_rate` is None as long as nothing tells it."""

    downtime_s: float
    bandwidth: float
    dirty_rate: float | None


def predict(rounds: Sequence[Measured], costs: Costs) -> Prediction:
    """What a cutover after these rounds, at least one, would cost."""
    last = rounds[-1]
    # The round that sent most tells the bandwidth best: a small one is mostly its fixed costs.
    widest = max(rounds, key=lambda r: r.sent_bytes)
    bandwidth = widest.sent_bytes / widest.seconds if widest.sent_bytes else costs.bandwidth
    rate = costs.dirty_rate
    if len(rounds) > 1:
        interval = last.begun_s - rounds[-2].begun_s
        rate = last.sent_bytes / interval if interval > 0 else rate
    dirty = costs.memory_bytes if rate is None else min(rate * last.seconds, costs.memory_bytes)
    send = (dirty + costs.shared_bytes) / max(bandwidth, 1.0)
    fixed = _FIXED_S + _FREEZES * min(r.frozen_s for r in rounds)
    return Prediction(send + costs.restore_s + fixed, bandwidth, rate)


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
