"""The plan: how the tree would be moved, and what that is going to cost.

Made on the source after preflight.  Pure.
"""

from enum import Enum

import msgspec

__all__ = ["Plan", "Way"]


class Way(Enum):
    """How the memory is moved."""

    PRE_COPY = "pre-copy"
    STOP_AND_COPY = "stop and copy"
    POST_COPY = "post-copy"
    HYBRID = "pre-copy, then post-copy"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected; seconds, bytes, bytes a second.

    `reason` says why this way.  `rounds`, `seconds` and `downtime_s` are predictions, and `because`
    says what they rest on, a line each.  `dirty_rate` is None where it cannot be measured.
    `shared_bytes` is memory that only the final dump sends.
    """

    way: Way
    reason: str
    memory_bytes: int
    shared_bytes: int
    dirty_rate: float | None
    bandwidth: float
    rounds: int
    seconds: float
    downtime_s: float
    because: tuple[str, ...]
