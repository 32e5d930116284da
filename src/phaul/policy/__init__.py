"""When to stop the pre-copy, and why: pure functions of the rounds so far."""

from phaul.policy.stop import NO_ROUNDS, NO_TRACKING, StopReason, StopRule, Verdict

__all__ = ["NO_ROUNDS", "NO_TRACKING", "StopReason", "StopRule", "Verdict"]
