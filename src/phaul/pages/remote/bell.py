"""What rings when something has changed: threads ring it, an event loop waits for it.

Used on both hosts, by the two ends of a link.
"""

import os
from contextlib import suppress

__all__ = ["Bell"]


class Bell:
    """`changed` is an eventfd that is readable from a change on, until it is cleared."""

    def __init__(self) -> None:
        self.changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def clear(self) -> None:
        """Make `changed` unreadable until the next change."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.changed)

    def _tell(self) -> None:
        with suppress(OSError):
            os.eventfd_write(self.changed, 1)

    def _silence(self) -> None:
        """Close it; may be called again."""
        if self.changed >= 0:
            os.close(self.changed)
            self.changed = -1
