"""A guest's clock against the host's.  Runs on the host."""

import json
import socket
import time
from dataclasses import dataclass

from . import frames

SAMPLES = 40
"""Questions a measurement asks; the one with the shortest round trip counts."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a guest's CLOCK_REALTIME is ahead of the host's."""

    seconds: float
    error: float
    """Half the best round trip: the offset is within plus or minus so much."""

    def __str__(self) -> str:
        """Show both in milliseconds."""
        return f"{self.seconds * 1000:+.3f} ms, +-{self.error * 1000:.3f}"


def _ask(sock: socket.socket, kind: bytes, payload: bytes = b"") -> int:
    frames.send(sock, kind, payload)
    answer, payload = frames.receive(sock)
    if answer != frames.TIME:
        raise frames.FrameError(f"no time but a frame {answer!r}")
    return int(payload)


def _measure(sock: socket.socket) -> tuple[int, int]:
    """Return the offset and the round trip, in nanoseconds."""
    samples = []
    for _ in range(SAMPLES):
        before = time.clock_gettime_ns(time.CLOCK_REALTIME)
        guest = _ask(sock, frames.ASK)
        after = time.clock_gettime_ns(time.CLOCK_REALTIME)
        samples.append((after - before, guest - (before + after) // 2))
    trip, offset = min(samples)
    return offset, trip


def compare(sock: socket.socket, *, step: bool) -> Offset:
    """Measure a guest's clock over a fresh connection; with `step`, set it first."""
    frames.send(sock, frames.REQUEST, json.dumps({"clock": True}).encode())
    if step:
        _ask(sock, frames.STEP, str(-_measure(sock)[0]).encode())
    offset, trip = _measure(sock)
    return Offset(offset / 1e9, trip / 2e9)


def answers(sock: socket.socket) -> bool:
    """Whether there is an agent: QEMU accepts connections before the guest does."""
    frames.send(sock, frames.REQUEST, json.dumps({"clock": True}).encode())
    return _ask(sock, frames.ASK) > 0
