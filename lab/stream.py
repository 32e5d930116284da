"""Output of a running command, in memory, for one reader.  Runs on the host.

Kept without limit, so that a reader of one stream never blocks the command on the other.
"""

import threading
import time
from collections.abc import Iterator

from .errors import DeadlineError


class Stream:
    """Bytes that one thread writes and another reads."""

    def __init__(self, name: str) -> None:
        """Start empty; the name is for messages."""
        self.name = name
        self._buffer = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def feed(self, data: bytes) -> None:
        """Append what the command wrote."""
        with self._changed:
            self._buffer += data
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more comes; readers who reach the end get the error, if there is one."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def _take(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def _wait(self, timeout: float, wanted: int, newline: bool) -> None:
        """Wait for so many bytes, or for a line, or for the end."""
        end = time.monotonic() + timeout
        searched = 0
        while not self._ended and len(self._buffer) < wanted:
            if newline:
                if self._buffer.find(b"\n", searched) >= 0:
                    return
                searched = len(self._buffer)
            left = end - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"{self.name}: nothing within {timeout:.1f} s")
            self._changed.wait(left)
        if self._error and len(self._buffer) < wanted and not (newline and b"\n" in self._buffer):
            raise self._error

    def read(self, length: int = -1, timeout: float = 60.0) -> bytes:
        """Read so many bytes, or to the end; fewer come only at the end.

        Raises:
            DeadlineError: they did not come in time.
        """
        with self._changed:
            self._wait(timeout, length if length >= 0 else 1 << 62, newline=False)
            return self._take(length if length >= 0 else len(self._buffer))

    def readline(self, timeout: float = 60.0) -> bytes:
        """Read one line, with its newline; empty at the end.

        Raises:
            DeadlineError: it did not come in time.
        """
        with self._changed:
            self._wait(timeout, 1 << 62, newline=True)
            found = self._buffer.find(b"\n")
            return self._take(found + 1 if found >= 0 else len(self._buffer))

    def lines(self, timeout: float = 60.0) -> Iterator[str]:
        """Yield the lines as they come, without newlines; the timeout is for each.

        Raises:
            DeadlineError: one did not come in time.
        """
        while line := self.readline(timeout):
            yield line.decode(errors="replace").removesuffix("\n")

    def __iter__(self) -> Iterator[str]:
        """Yield the lines as they come, each within a minute."""
        return self.lines()
