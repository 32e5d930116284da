"""How long rounds take: the bandwidth, and what each costs beside its bytes.

Used on the source after each round.  Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Measured", "Pace", "gap", "measure"]

_FORGET: Final = 0.25
"""How much less a round tells of the bandwidth than the one after it."""
_FORGOTTEN: Final = 3
"""After so many rounds nothing more is forgotten: small rounds tell little of the bandwidth."""
_ROUND_S: Final = 0.03
"""What a round takes beside its bytes, before any tells: natively, 12 to 60 ms."""
_ROUND_DOUBT_S: Final = 0.05
"""By how much that may be wrong."""
_DOUBT: Final = 10.0
"""The assumed bandwidth may be wrong by so many times."""
_ASSUMED: Final = 1e-4
"""What the assumed bandwidth counts beside a round."""
_UNSURE: Final = 4.0
"""Whose bytes took less than some times what a round takes beside them tells no bandwidth."""
_MOST_BANDWIDTH: Final = 1e14
_NOISE: Final = 0.15
_NOISE_S: Final = 0.005
"""How much equal rounds differ: in proportion to what their bytes took, and in seconds at least."""
_VARIES: Final = 3.0
"""Links are slower than in the widest round by so many times at most, or else that is noise too."""


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
class Pace:
    """How long it takes to send something, by what the rounds so far took.

    `bandwidth` is bytes a second, `round_s` what a round takes beside its bytes and `cutover_s`
    what a cutover does.  `still_s` is how long of a round the process stands still.  `share` is how
    much of its CPU time the process may use: it dirties less in the same time.
    """

    bandwidth: float
    round_s: float
    still_s: float = 0.0
    cutover_s: float = 0.0
    share: float = 1.0

    def runs_s(self, sent: float) -> float:
        """How long the process runs, of its own CPU time, while a round sends so many bytes."""
        return max(self.round_s + sent / self.bandwidth - self.still_s, 0.0) * self.share

    def downtime_s(self, dirty: float) -> float:
        """The downtime when so many private bytes are dirty."""
        return self.cutover_s + dirty / self.bandwidth


def measure(rounds: Sequence[Measured], assumed: float) -> Pace:
    """The pace of these rounds, at least one; `assumed` is the bandwidth, if none tells."""
    assumed = max(assumed, 1.0)
    beside = _beside(rounds, 1 / assumed)
    # The bandwidth is a mean of ratios, so that one that has changed soon counts as what it is.
    # The less of a round its bytes took, the less it tells.
    total, logs = _ASSUMED, _ASSUMED * math.log(assumed)
    for age, round_ in enumerate(reversed(rounds)):
        moving = round_.seconds - beside
        if moving > 0 and round_.sent_bytes:
            weight = _recency(age) * (moving / (moving + _UNSURE * beside)) ** 3
            total += weight
            logs += weight * math.log(round_.sent_bytes / moving)
    bandwidth = min(max(math.exp(logs / total), 1.0), _MOST_BANDWIDTH)
    still = min(r.frozen_s for r in rounds)
    return Pace(bandwidth, beside + gap(rounds), min(still, beside))


def gap(rounds: Sequence[Measured]) -> float:
    """What lies between two rounds, in seconds."""
    if len(rounds) < 2:
        return 0.0
    before, last = rounds[-2:]
    return max(last.begun_s - before.begun_s - before.seconds, 0.0)


def _beside(rounds: Sequence[Measured], slope: float) -> float:
    """What a round takes beside its bytes: the height of the line through seconds over bytes.

    Least squares; what varies is how long the bytes take.  The sums begin with what is assumed,
    which has little weight and makes a line of one round too; `slope` is the seconds a byte that
    are assumed.
    """
    widest = max(rounds, key=lambda r: r.sent_bytes)
    usual = widest.seconds / max(widest.sent_bytes, 1)
    count, sent, sent2 = 1 / _ROUND_DOUBT_S**2, 0.0, 1 / (_DOUBT * slope) ** 2
    took, both = _ROUND_S * count, slope * sent2
    for age, round_ in enumerate(reversed(rounds)):
        moving = min(round_.seconds, _VARIES * usual * round_.sent_bytes)
        surety = _recency(age) / ((_NOISE * moving) ** 2 + _NOISE_S**2)
        count += surety
        sent += surety * round_.sent_bytes
        sent2 += surety * round_.sent_bytes**2
        took += surety * round_.seconds
        both += surety * round_.sent_bytes * round_.seconds
    height = (took * sent2 - sent * both) / max(count * sent2 - sent * sent, 1e-300)
    return min(max(height, 0.0), *(r.seconds for r in rounds))


def _recency(age: int) -> float:
    return _FORGET ** min(age, _FORGOTTEN)
