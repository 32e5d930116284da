"""What is going to be done, and whether it can be: pure, made on the source before the freeze."""

from phaul.plan.catalogue import CHECKS, Check
from phaul.plan.plan import Plan, Way
from phaul.plan.wishes import Compress, OnTimeout, Restoring, Tcp, Wishes

__all__ = [
    "CHECKS",
    "Check",
    "Compress",
    "OnTimeout",
    "Plan",
    "Restoring",
    "Tcp",
    "Way",
    "Wishes",
]
