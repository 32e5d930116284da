"""The stop rule of the pre-copy: a pure function of the pages that each round had to send.

Used on the source after each round.  It is the original's rule (few pages, growth, most rounds)
with its faults mended: shared memory counts too, and the first round, which sends all there is, is
never compared with a round before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from phaul.errors import UsageError

__all__ = ["StopReason", "StopRule"]


class StopReason(Enum):
    """Why the pre-copy ended."""

    SMALL = "small"
    GROWTH = "growth"
    MOST_ROUNDS = "most-rounds"
    NO_TRACKING = "no-tracking"

    def explain(self, pages: Sequence[int]) -> str:
        """The reason in words, for the rounds that led to it."""
        last = pages[-1] if pages else 0
        match self:
            case StopReason.SMALL:
                return f"the last round had few pages to send ({last})"
            case StopReason.GROWTH:
                return f"the last round had more to send than the one before ({pages[-2]}, {last})"
            case StopReason.MOST_ROUNDS:
                return f"the most rounds were made ({len(pages)})"
            case StopReason.NO_TRACKING:
                return "the kernel does not track dirty memory, so there was no pre-copy"


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

    def decide(self, pages: Sequence[int]) -> StopReason | None:
        """The reason to stop after rounds that sent `pages`, private and shared; None to go on."""
        if not pages:
            return None
        if pages[-1] < self.min_pages:
            return StopReason.SMALL
        if len(pages) > 1 and pages[-1] - pages[-2] >= self.max_growth_pages:
            return StopReason.GROWTH
        if len(pages) >= self.max_rounds:
            return StopReason.MOST_ROUNDS
        return None
