"""The destination's half of the preflight: what the tree needs of this host, and what is here."""

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.host import look

__all__ = ["CheckContext", "look"]
