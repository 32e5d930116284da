"""Spares the restore a wait for cgroups, by keeping them as if they had been changed just now.

Runs on the destination, in a thread, from the moment that a round is complete, or that memory is
going to follow, until the copy is let go.  CRIU moves what it restores into the groups that it was
in; the first such change after a rest would wait for 10 to 20 ms (see `Apart.warm`), in which the
process is down.
"""

import threading
import time
from typing import Final

from phaul.subjects.apart import WARM_S, Apart

__all__ = ["Warmth"]

_FOR_S: Final = 2.0
"""The next round may begin instead, and this is work for nothing then."""
_JOIN_S: Final = 1.0


class Warmth:
    """The thread, which there is at most one of; `end` and `join` it."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart
        self._until = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """From now on, for 2 s at most."""
        self._until = time.monotonic() + _FOR_S
        self._over.clear()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="phaul-warmth", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """No more; does not wait for a change that is under way."""
        self._over.set()

    def join(self) -> None:
        """End it, and wait for the thread."""
        self.end()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while time.monotonic() < self._until and self._apart.warm():
            if self._over.wait(WARM_S):
                break
