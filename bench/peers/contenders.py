"""Who takes part in `bench.peers`: what each is in a word, and what is typed for it.  Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["BY_HAND", "CONTENDERS", "Contender", "contender"]

BY_HAND: Final = "by hand"
_MOVE_IT: Final = ("--on-timeout", "cutover")
"""Also where the downtime that is aimed at is not to be had: else there would be no figure."""


@dataclass(frozen=True)
class Contender:
    """`words` are options of `phaul migrate`, None for a move by hand.

    `tracked` says that it differs from the others only where dirty memory is tracked.  `mark` is
    its class in the page's style.
    """

    name: str
    about: str
    words: tuple[str, ...] | None
    mark: str
    tracked: bool = False

    def lacks(self, options: Collection[str]) -> str | None:
        """An option that it needs and that is not among these; None if it has all."""
        needed = [word for word in self.words or () if word.startswith("--")]
        return next((word for word in needed if word not in options), None)


CONTENDERS: Final = (
    Contender(
        BY_HAND,
        "stop and copy with the criu command: dump, the images over the link, restore",
        None,
        "hand",
    ),
    Contender(
        "original",
        "the original's rule: one pre-dump, then a full restore",
        ("--max-rounds", "1", *_MOVE_IT, "--restore", "full"),
        "original",
        tracked=True,
    ),
    Contender("phaul", "phaul as it comes", _MOVE_IT, "phaul"),
    Contender(
        "phaul full",
        "phaul, which restores all memory before the process runs",
        (*_MOVE_IT, "--restore", "full"),
        "full",
    ),
    Contender(
        "post-copy",
        "phaul, which leaves the memory behind and has it follow",
        ("--post-copy",),
        "post",
    ),
)
"""One more is one more line, and its name in the scenarios that it takes part in."""


def contender(name: str) -> Contender | None:
    """The one of that name."""
    return next((one for one in CONTENDERS if one.name == name), None)
