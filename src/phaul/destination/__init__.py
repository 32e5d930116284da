"""The destination's session: a page server a round, then the restore, held until it is released."""

from phaul.destination.session import DestinationSession

__all__ = ["DestinationSession"]
