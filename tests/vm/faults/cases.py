"""What is broken, when, and where the process may be after it.  Pure."""

from enum import Enum
from typing import Final

__all__ = ["Fault", "Moment", "Place", "places"]


class Moment(Enum):
    """Where a migration stands when something breaks, in its order."""

    CONNECTING = "connecting"
    PREFLIGHT = "preflight"
    IN_ROUND = "in-round"
    BETWEEN_ROUNDS = "between-rounds"
    FREEZING = "freezing"
    """CRIU holds it, and it is not locked yet."""
    LOCKED = "locked"
    """The dump is complete, Restore is not sent."""
    RESTORING = "restoring"
    READY = "ready"
    """Ready is on its way, or has come, and nothing is decided."""
    DECIDED = "decided"
    """CRIU has not killed it yet."""
    GONE = "gone"
    """It is killed, and Commit is not sent."""
    RELEASING = "releasing"
    """Commit has come, CRIU has not let it go yet."""
    RUNNING = "running"
    """It runs there, and the source has not heard of it."""

    @property
    def after(self) -> int:
        """How many there are before."""
        return list(Moment).index(self)


class Fault(Enum):
    """What breaks."""

    POWER_SRC = "power-of-the-source"
    POWER_DST = "power-of-the-destination"
    LINK_SHORT = "link-cut-for-seconds"
    """Shorter than a connection needs to be lost."""
    LINK_PATIENCE = "link-cut-until-it-is-noticed"
    """Both ends have lost the connection, and the migration still tries to make a new one."""
    LINK_LONG = "link-cut-for-good"
    """Until the migration has given up."""
    PHAUL = "phaul-killed-on-the-source"
    AGENT = "agent-killed-on-the-destination"
    CRIU_SRC = "criu-killed-on-the-source"
    CRIU_DST = "criu-killed-on-the-destination"


class Place(Enum):
    """Where the process is at the end, running."""

    SRC = "src"
    DST = "dst"
    ENDED = "ended"
    """With the machine whose it was."""


_SRC: Final = frozenset({Place.SRC})
_DST: Final = frozenset({Place.DST})
_EITHER: Final = _SRC | _DST


def places(moment: Moment, fault: Fault) -> frozenset[Place]:
    """Where the process may be then; the rest is wrong, whatever else is right."""
    at = moment.after
    if moment is Moment.RUNNING and fault is Fault.POWER_DST:
        return _DST | {Place.ENDED}  # it was handed over, if the source's machine has heard it
    if at >= Moment.GONE.after:
        return _DST
    match fault:
        case Fault.POWER_SRC:
            if at <= Moment.LOCKED.after:
                return frozenset({Place.ENDED})
            # It is over there from when Ready is on the disk there, which nobody else can tell.
            return _DST | {Place.ENDED} if moment is Moment.RESTORING else _DST
        case Fault.POWER_DST | Fault.LINK_LONG | Fault.AGENT:
            if moment is Moment.CONNECTING and fault is Fault.POWER_DST:
                return _EITHER  # it may be up again before ssh has given up
            if at <= Moment.RESTORING.after:
                return _SRC
            return _EITHER if moment is Moment.READY else _DST
        case Fault.LINK_SHORT | Fault.LINK_PATIENCE:
            return _EITHER if at <= Moment.READY.after else _DST
        case Fault.PHAUL:
            return _SRC if at <= Moment.READY.after else _EITHER
        case Fault.CRIU_DST if moment in (Moment.IN_ROUND, Moment.BETWEEN_ROUNDS):
            return _DST  # phaul receives rounds by itself: the CRIU that waits is replaced
        case Fault.CRIU_SRC | Fault.CRIU_DST:
            return _SRC if at <= Moment.RESTORING.after else _EITHER
