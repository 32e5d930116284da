"""What the agent says of its host in its Welcome.

Used in the handshake, on the destination; the source has the same of itself from `phaul.criu`.
"""

from phaul.criu.facts import host_facts

__all__ = ["host_facts"]
