"""When to stop the pre-copy, and why: pure functions of the rounds so far."""

from phaul.policy.stop import StopReason, StopRule

__all__ = ["StopReason", "StopRule"]
