"""What the user wants of a migration: the options of `phaul migrate`, checked.

Made on the source, before anything is done.  Pure.
"""

from dataclasses import dataclass, field
from enum import Enum

from phaul.errors import UsageError
from phaul.plan.catalogue import CHECKS

__all__ = ["Compress", "OnTimeout", "Restoring", "Tcp", "Wishes"]


class OnTimeout(Enum):
    """What to do when the rounds do not come to the downtime, or take longer than they may.

    THROTTLE slows the process down, as little as will do; where that does not help it cancels.
    POSTCOPY cuts over, and what is dirty then follows when the process runs over there.
    """

    CANCEL = "cancel"
    CUTOVER = "cutover"
    THROTTLE = "throttle"
    POSTCOPY = "postcopy"


class Compress(Enum):
    """Whether the memory is compressed on its way; AUTO where that is the shorter way."""

    AUTO = "auto"
    NONE = "none"
    ZSTD = "zstd"


class Restoring(Enum):
    """How the memory is restored: LAZY brings it in when the process runs, FULL before it does;
    AUTO as is shorter."""

    AUTO = "auto"
    LAZY = "lazy"
    FULL = "full"


class Tcp(Enum):
    """What becomes of established TCP connections."""

    KEEP = "keep"
    CLOSE = "close"


@dataclass(frozen=True)
class Wishes:
    """Options of one migration; seconds, and bytes a second.

    `bandwidth` is a cap, None for none.  `allow` are ids of checks whose `no` is only a warning.
    `tcp` None refuses a tree with established connections.  With `post_copy` there are no rounds:
    the process moves at once, and its memory follows.  With `split_huge_pages` they are split
    before the first round, and khugepaged of the machine waits meanwhile.  Raises UsageError.
    """

    max_downtime_s: float = 0.3
    timeout_s: float = 600.0
    on_timeout: OnTimeout = OnTimeout.CANCEL
    bandwidth: float | None = None
    max_rounds: int = 16
    compress: Compress = Compress.AUTO
    tcp: Tcp | None = None
    keep_images: bool = False
    restore: Restoring = Restoring.AUTO
    post_copy: bool = False
    split_huge_pages: bool = False
    allow: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if unknown := sorted(self.allow - set(CHECKS)):
            raise UsageError(
                f"{unknown[0]!r} is no check of the preflight",
                remedy=f"one of: {', '.join(CHECKS)}",
            )
        if self.restore is Restoring.FULL and self.may_leave:
            raise UsageError(
                "memory that follows cannot be restored in full before the process runs",
                remedy="leave out --restore full",
            )
        for name, value in (
            ("max_downtime", self.max_downtime_s),
            ("timeout", self.timeout_s),
            ("bandwidth", 1.0 if self.bandwidth is None else self.bandwidth),
            ("max_rounds", self.max_rounds),
        ):
            if not value > 0:
                raise UsageError(f"{name} is {value}, it must be more than 0")

    @property
    def may_leave(self) -> bool:
        """Whether memory may be left on the source, to follow."""
        return self.post_copy or self.on_timeout is OnTimeout.POSTCOPY
