"""The stop rule of the pre-copy: a pure function of the pages that each round had to send.

Used on the source after each round.  It is the original's rule (few pages, growth, most rounds)
with its faults mended: shared memory counts too, and the first round, which sends all there is, is
never compared with a round before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from phaul.errors import UsageError

__all__ = ["NO_ROUNDS", "NO_TRACKING", "StopReason", "StopRule", "Verdict"]


class StopReason(Enum):
    """Why the pre-copy ended."""

    SMALL = "small"
    GROWTH = "growth"
    MOST_ROUNDS = "most-rounds"
    NO_TRACKING = "no-tracking"
    TARGET = "target"
    NOT_CONVERGING = "not-converging"
    TIMEOUT = "timeout"
    POST_COPY = "post-copy"


@dataclass(frozen=True)
class Verdict:
    """That the pre-copy is over: why, and the same in words."""

    reason: StopReason
    explanation: str


NO_TRACKING: Final = Verdict(
    StopReason.NO_TRACKING, "the kernel does not track dirty memory, so there was no pre-copy"
)


NO_ROUNDS: Final = Verdict(
    StopReason.POST_COPY, "no rounds were wanted: the process moves first, its memory follows"
)


@dataclass(frozen=True)
class StopRule:
    """When to stop: at fewer than `min_pages` pages (4 KiB each), when a round sends
    `max_growth_pages` or more than the one before, or after `max_rounds` rounds.

    The defaults are the original's.
    """

    min_pages: int = 64
    max_growth_pages: int = 32
    max_rounds: int = 8

    def __post_init__(self) -> None:
        if self.min_pages < 0:
            raise UsageError(f"min_pages is {self.min_pages}, it must be 0 or more")
        if self.max_growth_pages < 1:
            raise UsageError(f"max_growth_pages is {self.max_growth_pages}, it must be 1 or more")
        if self.max_rounds < 1:
            raise UsageError(f"max_rounds is {self.max_rounds}, it must be 1 or more")

    def decide(self, pages: Sequence[int]) -> Verdict | None:
        """Why to stop after rounds that sent `pages`, private and shared; None to go on."""
        if not pages:
            return None
        last = pages[-1]
        if last < self.min_pages:
            return Verdict(StopReason.SMALL, f"the last round had few pages to send ({last})")
        if len(pages) > 1 and last - pages[-2] >= self.max_growth_pages:
            return Verdict(
                StopReason.GROWTH,
                f"the last round had more to send than the one before ({pages[-2]}, {last})",
            )
        if len(pages) >= self.max_rounds:
            return Verdict(StopReason.MOST_ROUNDS, f"the most rounds were made ({len(pages)})")
        return None
