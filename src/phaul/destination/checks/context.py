"""What the checks of the destination look at.

Used in preflight, on the destination.  Everything that is the host's comes in here, so that a test
can put something else in its place.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phaul.criu.engine import Engine
from phaul.network.addresses import IPAddress, local_addresses

__all__ = ["CheckContext"]


def _machine() -> str:
    return os.uname().machine


@dataclass(frozen=True)
class CheckContext:
    """The host as the checks see it.

    `directory` is the agent's own, where the images are going to be; it may be still to be made.
    `proc` is /proc, and `root` the root of the file system, with /sys below it.  `search` are the
    directories for programs, None for PATH.  `local` says which of some addresses a socket can be
    bound to here; it raises OSError.
    """

    engine: Engine
    directory: Path
    proc: Path = Path("/proc")
    root: Path = Path("/")
    machine: str = field(default_factory=_machine)
    search: str | None = None
    local: Callable[[Iterable[IPAddress]], frozenset[IPAddress]] = local_addresses

    def path(self, absolute: str) -> Path:
        """Where an absolute path is below `root`."""
        return self.root / absolute.lstrip("/")
