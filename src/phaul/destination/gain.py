"""Where a lazy restore is worth it: how much memory has to be left to CRIU's daemon, and may be.

Used on the destination, from Prepare to the restore.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from phaul.pages.store.index import PAGE

__all__ = ["ALL", "available_memory", "bounds", "worth"]

_GAINS_S: Final = 0.03
"""A lazy restore itself costs about that; less is not worth it."""
_ROOM: Final = 0.8
"""Pages that a forked tree shared are no longer shared: so much of the memory may be taken."""
ALL: Final = 1 << 50
"""More pages than there are."""


def worth(pages: int, rate: float, available: int | None) -> bool:
    """Whether to leave `pages` to the daemon, where a restore reads `rate` bytes a second.

    `available` is the memory that is free, in bytes, if it is known.
    """
    least, most = bounds(rate, available)
    return least <= pages <= most


def bounds(rate: float, available: int | None) -> tuple[int, int]:
    """The fewest and the most pages for which it is worth it."""
    most = ALL if available is None else min(int(available * _ROOM) // PAGE, ALL)
    return min(int(rate * _GAINS_S) // PAGE + 1, ALL), most


def available_memory() -> int | None:
    """The memory that this host could give (MemAvailable of /proc/meminfo), in bytes."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None
