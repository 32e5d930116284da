"""A link that is slow: what comes in on one side goes out on the other some time later.

    python3 -I -S delay.py MS                  between its standard input and output, two sockets
    python3 -I -S delay.py MS COMMAND...       between its standard input, and that of a command

MS is the delay each way.  A process of its own, so that it takes no time of those that it joins.
For a kernel that has no netem.
"""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import Final

_READ: Final = 1 << 18
_MOST: Final = 64 << 20
"""Bytes under way in one direction; a link of 1 GB/s and 20 ms has fewer."""


class Direction:
    """What is under way from one socket to another."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self.source, self.sink, self._delay = source, sink, delay
        self._queue: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self.open = self.hears = True

    @property
    def reads(self) -> bool:
        """Whether there is room for more."""
        return self.hears and self._held < _MOST

    def due(self) -> float | None:
        """When the next bytes arrive."""
        return self._queue[0][0] if self._queue else None

    def take(self) -> None:
        """Take what came in."""
        try:
            data = self.source.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.hears = bool(data)
        self._held += len(data)
        self._queue.append((time.monotonic() + self._delay, data))

    def deliver(self) -> None:
        """Hand on what has arrived."""
        while self._queue and self._queue[0][0] <= time.monotonic():
            due, data = self._queue[0]
            try:
                sent = self.sink.send(data) if data else 0
                if not data:
                    self.sink.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                return
            except OSError:
                data, sent = b"", 0
            if not data:
                self.open = self.hears = False
                self._queue.clear()
                return
            self._held -= sent
            if sent < len(data):
                self._queue[0] = due, data[sent:]
                return
            self._queue.popleft()


def join(one: socket.socket, other: socket.socket, delay: float) -> None:
    """Be the link between two sockets until both directions have ended."""
    for sock in (one, other):
        sock.setblocking(False)
    ways = (Direction(one, other, delay), Direction(other, one, delay))
    while any(way.open for way in ways):
        now = time.monotonic()
        coming = [(at, way.sink) for way in ways if (at := way.due()) is not None]
        late = [sink for at, sink in coming if at <= now]  # it took nothing when it was due
        timeout = min((at - now for at, _ in coming if at > now), default=None)
        readers = [way.source for way in ways if way.reads]
        ready, _, _ = select.select(readers, late, [], timeout)
        for way in ways:
            if way.source in ready:
                way.take()
            way.deliver()


def main() -> int:
    """Be the link; returns the command's status."""
    delay, command = float(sys.argv[1]) / 1000, sys.argv[2:]
    near = socket.socket(fileno=0)
    if not command:
        join(near, socket.socket(fileno=1), delay)
        return 0
    far, its = socket.socketpair()
    process: subprocess.Popen[bytes] = subprocess.Popen(
        command, stdin=its.fileno(), stdout=its.fileno()
    )
    its.close()
    join(near, far, delay)
    near.close()
    far.close()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
