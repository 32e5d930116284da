"""A link that is slow: what comes in on one side goes out on the other some time later.

    python3 -I -S delay.py MS                  between its standard input and output, two sockets
    python3 -I -S delay.py MS COMMAND...       between its standard input, and that of a command

MS is the delay each way.  A process of its own, so that it takes no time of those that it joins.
For a kernel that has no netem.  `Junction` is the same for several pairs of sockets that share what
the link carries a second: see bench/peers/link.py.
"""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_READ: Final = 1 << 18
_MOST: Final = 64 << 20
"""Bytes under way in one direction; a link of 1 GB/s and 20 ms has fewer."""
_MOST_SHAPED: Final = 1 << 20
"""Where the rate is limited: about what a connection's buffers hold."""
_SHARE: Final = 1 << 16
_SPARE_S: Final = 0.004
_LEAST: Final = 1 << 12


class Bucket:
    """What one direction of a link still carries at this moment, at `rate` bytes a second.

    What was not used is lost, but for that of some milliseconds: nobody is woken in time to the
    microsecond.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(rate * _SPARE_S, _LEAST)
        self._level, self._at = self._most, clock()

    def allowed(self) -> int:
        """How many bytes may be sent now."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
        return int(self._level)

    def take(self, count: int) -> None:
        """So many were sent."""
        self._level -= count

    def wait_s(self) -> float:
        """The seconds until enough may be sent to be worth it; 0 if it may be now."""
        return max(0.0, (min(self._most, _LEAST) - self.allowed()) / self._rate)


class Direction:
    """What is under way from one socket to another; `bucket` is shared by all of a direction."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, delay: float, bucket: Bucket | None = None
    ) -> None:
        self.source, self.sink, self._delay, self._bucket = source, sink, delay, bucket
        self._queue: deque[tuple[float, bytes]] = deque()
        self._held = self.sent = 0
        self._most = _MOST if bucket is None else _MOST_SHAPED
        self.open = self.hears = True

    @property
    def reads(self) -> bool:
        """Whether there is room for more."""
        return self.hears and self._held < self._most

    def due(self) -> float | None:
        """When the next bytes may arrive."""
        if not self._queue:
            return None
        due, data = self._queue[0]
        wait = self._bucket.wait_s() if self._bucket is not None and data else 0.0
        return max(due, time.monotonic() + wait) if wait else due

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
        """Hand on what has arrived; with a bucket some of it, so that others get their share."""
        while self._queue and self._queue[0][0] <= time.monotonic():
            due, data = self._queue[0]
            most = len(data)
            if self._bucket is not None and data:
                most = min(most, self._bucket.allowed(), _SHARE)
                if not most:
                    return
            try:
                sent = self.sink.send(data[:most]) if data else 0
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
            self.sent += sent
            self._held -= sent
            if self._bucket is not None:
                self._bucket.take(sent)
            if sent < len(data):
                self._queue[0] = due, data[sent:]
            else:
                self._queue.popleft()
            if self._bucket is not None or sent < most:
                return


class Junction:
    """Joins pairs of sockets; all of a direction share its `rate` in bytes a second, if any.

    `sent` is how many bytes were delivered, there and back.
    """

    def __init__(self, delay: float = 0.0, rate: float | None = None) -> None:
        self._delay = delay
        self._buckets = (Bucket(rate), Bucket(rate)) if rate else (None, None)
        self._pairs: list[tuple[Direction, Direction]] = []
        self._ways: list[Direction] = []
        self._done = [0, 0]

    @property
    def sent(self) -> tuple[int, int]:
        """The bytes delivered so far, there and back."""
        there, back = (sum(pair[way].sent for pair in self._pairs) for way in (0, 1))
        return self._done[0] + there, self._done[1] + back

    @property
    def open(self) -> bool:
        """Whether a pair has not ended yet."""
        return bool(self._pairs)

    def add(self, one: socket.socket, other: socket.socket) -> None:
        """Join two sockets, which are closed when both directions have ended."""
        for sock in (one, other):
            sock.setblocking(False)
        pair = (
            Direction(one, other, self._delay, self._buckets[0]),
            Direction(other, one, self._delay, self._buckets[1]),
        )
        self._pairs.append(pair)
        self._ways += pair

    def step(self, asked: socket.socket | None = None) -> bool:
        """Move what can be moved, or wait for it; whether there is something to read at `asked`."""
        now = time.monotonic()
        coming = [(at, way.sink) for way in self._ways if (at := way.due()) is not None]
        late = [sink for at, sink in coming if at <= now]  # it took nothing when it was due
        timeout = min((at - now for at, _ in coming if at > now), default=None)
        readers = [way.source for way in self._ways if way.reads]
        ready, _, _ = select.select([*readers, *([asked] if asked else [])], late, [], timeout)
        for way in self._ways:
            if way.source in ready:
                way.take()
            way.deliver()
        self._ways = self._ways[1:] + self._ways[:1]  # whoever comes first takes the most
        for pair in [p for p in self._pairs if not (p[0].open or p[1].open)]:
            self._end(pair)
        return asked in ready

    def _end(self, pair: tuple[Direction, Direction]) -> None:
        self._pairs.remove(pair)
        for number, way in enumerate(pair):
            self._ways.remove(way)
            self._done[number] += way.sent
            way.source.close()


def join(one: socket.socket, other: socket.socket, delay: float) -> None:
    """Be the link between two sockets until both directions have ended."""
    junction = Junction(delay)
    junction.add(one, other)
    while junction.open:
        junction.step()


def main() -> int:
    """Be the link; returns the command's status."""
    delay, command = float(sys.argv[1]) / 1000, sys.argv[2:]
    near = socket.socket(fileno=0)
    if not command:
        join(near, socket.socket(fileno=1), delay)
        return 0
    far, its = socket.socketpair()
    process = subprocess.Popen(command, stdin=its.fileno(), stdout=its.fileno())
    its.close()
    join(near, far, delay)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
