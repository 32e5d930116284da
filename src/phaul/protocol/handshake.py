"""Which version of the protocol the two ends speak.

Used first of all, on both hosts.  Pure.  The rule for versions is in `phaul.protocol`.
"""

from phaul.errors import VersionMismatch
from phaul.protocol import NEWEST, OLDEST
from phaul.protocol.messages import Versions

__all__ = ["OURS", "confirm", "negotiate"]

OURS = Versions(oldest=OLDEST, newest=NEWEST)


def negotiate(theirs: Versions, ours: Versions = OURS) -> int:
    """The newest version that both speak, as the agent picks it; raises VersionMismatch."""
    chosen = min(ours.newest, theirs.newest)
    if chosen < max(ours.oldest, theirs.oldest):
        raise _mismatch(f"{theirs.oldest} to {theirs.newest}", ours)
    return chosen


def confirm(chosen: int, ours: Versions = OURS) -> int:
    """The version that the agent chose, as the source checks it; raises VersionMismatch."""
    if not ours.oldest <= chosen <= ours.newest:
        raise _mismatch(f"{chosen}", ours)
    return chosen


def _mismatch(theirs: str, ours: Versions) -> VersionMismatch:
    return VersionMismatch(
        f"the other side speaks version {theirs} of phaul's protocol, "
        f"this one {ours.oldest} to {ours.newest}",
        remedy="install the same phaul on both hosts",
    )
