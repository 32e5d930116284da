"""Judges the transparent huge pages of a tree: what they add to its rounds, and what helps.

Used in preflight, on the source.  Pure.
"""

from dataclasses import dataclass
from typing import Final

from phaul.errors import PhaulError
from phaul.facts import AMPLIFIED, Memory
from phaul.plan.judges.words import Verdict, size
from phaul.protocol.preflight import Finding

__all__ = ["HugeFacts", "judge_huge", "many"]

_LARGE: Final = 32 << 20
_SHARE: Final = 0.25


@dataclass
class HugeFacts:
    """What was found of a tree's huge pages.

    `tracked`: dirty memory can be tracked, so there are rounds.  `wished`: they are to be split,
    which `obstacle` is in the way of.  `times`: about how many times as much of them is marked as
    written as was, None where that was not seen.
    """

    memory: Memory
    tracked: bool
    wished: bool
    obstacle: PhaulError | None = None
    times: float | None = None


def many(memory: Memory) -> bool:
    """Whether so much of the memory is in huge pages that it makes a difference."""
    huge = memory.transparent_huge
    return huge >= _LARGE and huge >= _SHARE * memory.private


def judge_huge(facts: HugeFacts) -> list[Finding]:
    """Findings of thp, and of split-huge-pages if that is wished."""
    found = [*_thp(facts)]
    if facts.wished:
        found += _split(facts)
    return found


def _thp(facts: HugeFacts) -> list[Finding]:
    verdict = Verdict("thp")
    memory = facts.memory
    huge = memory.transparent_huge
    there = f"{size(huge)} in transparent huge pages" if huge else "none in use"
    if not facts.tracked:
        return [*verdict.close(f"{there}; without rounds they do no harm" if huge else there)]
    if not many(memory) or (facts.wished and facts.obstacle is None):
        return [*verdict.close(there)]
    what = (
        f"{size(huge)} of {size(memory.private)} in transparent huge pages: one byte written is "
        "2 MiB to be sent again"
    )
    if facts.times is not None and facts.times >= AMPLIFIED:
        what += f", now about {facts.times:.0f} times what is written to them"
    verdict.warn(what, _UNLESS_SPLIT if facts.obstacle is not None else _SPLIT)
    return [*verdict.close("")]


_SPLIT: Final = (
    "--split-huge-pages splits them before the first round; until the end khugepaged, which puts "
    "pages together, waits then, on the whole machine"
)
_UNLESS_SPLIT: Final = (
    "start the program without them: "
    "`echo madvise >/sys/kernel/mm/transparent_hugepage/enabled`, or prctl(PR_SET_THP_DISABLE)"
)


def _split(facts: HugeFacts) -> list[Finding]:
    verdict = Verdict("split-huge-pages")
    obstacle = facts.obstacle
    if not facts.tracked:
        return [*verdict.close("not needed: there are no rounds")]
    if obstacle is not None:
        verdict.no(f"huge pages cannot be split: {obstacle.what[:1000]}", obstacle.remedy)
    return [
        *verdict.close(
            f"{size(facts.memory.transparent_huge)} of huge pages are split before the first "
            "round, and until the end khugepaged waits, on the whole machine"
        )
    ]
