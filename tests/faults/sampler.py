"""Watches one victim on both hosts, all the time: which copy ran, and which beats it made.

The counter of a victim stands beside its inverse in its memory, which is read from outside: that
disturbs nothing and wakes nobody.  Two copies of one process count on from the same number, so two
that ran have both made some beat; that is what `overlap` finds, whenever it was.
"""

import os
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Sampler", "Span"]

_PAIR: Final = struct.Struct("=QQ")
_ALL: Final = (1 << 64) - 1
_PERIOD_S: Final = 0.0015


@dataclass
class Span:
    """Beats that were made on one host without a break: after `low`, up to `high`."""

    host: str
    low: int
    high: int
    begun: float
    ended: float


@dataclass
class _Place:
    host: str
    memory: Path
    last: int | None = None
    spans: list[Span] = field(default_factory=list)


class Sampler:
    """A thread; a context manager.  `host1` and `host2` are where /proc of each is seen."""

    def __init__(self, pid: int, address: int, procs: dict[str, Path]) -> None:
        self._address = address
        self._places = {host: _Place(host, proc / str(pid) / "mem") for host, proc in procs.items()}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.looks = 0

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def counter(self, host: str) -> int | None:
        """The counter there now; None if the process is not there, or not whole yet."""
        try:
            handle = os.open(self._places[host].memory, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.pread(handle, _PAIR.size, self._address)
        except OSError:
            return None
        finally:
            os.close(handle)
        if len(data) != _PAIR.size:
            return None
        counter, inverse = _PAIR.unpack(data)
        # 0 is what the program's file has there: its memory is not restored yet.
        return int(counter) if counter ^ inverse == _ALL and counter else None

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            with self._lock:
                self.look()

    def look(self) -> None:
        """Look once at both."""
        self.looks += 1
        for place in self._places.values():
            now = self.counter(place.host)
            if now is None:
                continue
            if place.last is not None and now != place.last:
                self._moved(place, now)
            place.last = now

    def _moved(self, place: _Place, now: int) -> None:
        moment = time.monotonic()
        assert place.last is not None
        if place.spans and place.spans[-1].high == place.last:
            place.spans[-1].high = now
            place.spans[-1].ended = moment
        else:
            place.spans.append(Span(place.host, place.last, now, moment, moment))

    def spans(self) -> list[Span]:
        """What ran so far."""
        with self._lock:
            return [span for place in self._places.values() for span in place.spans]

    def running(self, within: float) -> set[str]:
        """The hosts on which it makes beats, within so many seconds from now."""
        before = {host: self.counter(host) for host in self._places}
        until = time.monotonic() + within
        found: set[str] = set()
        while time.monotonic() < until and not found:
            time.sleep(0.004)
            for host, count in before.items():
                now = self.counter(host)
                if count is None:
                    before[host] = now
                elif now is not None and now != count:
                    found.add(host)
        # One more look at the other, which may be just as quick.
        time.sleep(0.012)
        for host, count in before.items():
            now = self.counter(host)
            if count is not None and now is not None and now != count:
                found.add(host)
        return found

    def present(self) -> set[str]:
        """The hosts on which there is a copy, moving or not."""
        return {host for host in self._places if self.counter(host) is not None}

    def wrong(self) -> str:
        """What two copies, or one that lost beats, have left behind; empty if nothing."""
        spans = sorted(self.spans(), key=lambda span: span.begun)
        for index, span in enumerate(spans):
            if span.high < span.low:
                return f"{span.host} counted back from {span.low} to {span.high}"
            for later in spans[index + 1 :]:
                if max(span.low, later.low) < min(span.high, later.high):
                    return (
                        f"two copies ran: {span.host} made the beats {span.low} to {span.high}, "
                        f"{later.host} {later.low} to {later.high}"
                    )
        return ""
