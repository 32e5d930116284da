"""A thread that writes, so that the migration never waits for a terminal or a pipe.

Used on the source while a migration runs.  A terminal stopped with Ctrl-S, or a reader that does
not read, would otherwise hold a frozen process; what goes wrong in writing is logged, never raised.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

__all__ = ["Background"]

_log = logging.getLogger(__name__)
_CLOSE_S: Final = 2.0
T = TypeVar("T")


class Background(Generic[T]):
    """Calls `work` with each item that is `put`, in order, in a thread of its own.

    `idle` is called about every `every` seconds meanwhile, `begin` first and `end` last, all in
    that thread.  After anything has raised, items are taken and dropped.
    """

    def __init__(
        self,
        work: Callable[[T], None],
        *,
        begin: Callable[[], None] | None = None,
        idle: Callable[[], None] | None = None,
        end: Callable[[], None] | None = None,
        every: float = 0.1,
        name: str,
    ) -> None:
        self._work = work
        self._begin = begin
        self._idle = idle
        self._end = end
        self._every = every
        self._broken = self._lost = self._closed = False
        self._queue: SimpleQueue[tuple[T] | None] = SimpleQueue()
        # A daemon: if a write never returns, the command still ends.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """About how many items wait."""
        return self._queue.qsize()

    def put(self, item: T) -> None:
        """Have `item` worked on; never waits, never raises."""
        if not (self._closed or self._broken):
            self._queue.put((item,))

    def close(self, timeout: float = _CLOSE_S) -> bool:
        """Let what waits be worked on, for `timeout` seconds at most; returns whether all was."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._lost

    def _run(self) -> None:
        self._guarded(self._begin)
        while (item := self._next()) is not None:
            self._guarded(partial(self._work, item[0]))
        if self._end is not None:
            self._broken = False  # also then: the terminal's cursor is to come back
            self._guarded(self._end)

    def _next(self) -> tuple[T] | None:
        while True:
            idles = self._idle is not None and not self._broken
            try:
                return self._queue.get(timeout=self._every if idles else None)
            except Empty:
                self._guarded(self._idle)

    def _guarded(self, step: Callable[[], None] | None) -> None:
        if step is None or self._broken:
            return
        try:
            step()
        except Exception as error:
            self._broken = self._lost = True
            _log.debug("output ends here: %s: %s", type(error).__name__, error)
