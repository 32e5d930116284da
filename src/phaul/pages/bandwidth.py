"""How fast the memory may be sent: a token bucket that can be changed while it is used.

Used on the source by the relay, from the first round to the end of the cutover.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from phaul.errors import UsageError

__all__ = ["Bandwidth"]

# What may be saved up while nobody sends; and so how late a sender may wake and still be in time.
_BURST_S: Final = 0.1
# What is sent at once: small enough that no rate is exceeded by much, or waited for long.
_PIECE_S: Final = 0.02
_PIECE_LEAST: Final = 4096
# What is not worth a wait; a shorter one need not even move the clock.
_LEAST_S: Final = 1e-6


class Bandwidth:
    """At most `rate` bytes a second, None for no limit; for one sending thread.

    The sender takes a `piece`, waits with `wait`, sends it, and says with `spend` what it was.
    Over T seconds at most rate * (T + 0.1) bytes and a piece are sent.  Raises UsageError if the
    rate is not more than 0.  `clock` and `pause`, which waits some seconds, are for tests.
    """

    def __init__(
        self,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._changed = threading.Condition()
        self._clock = clock
        self._pause = pause or self._changed.wait
        self._stopped = False
        self._rate = _checked(rate)
        self._tokens = 0.0
        self._at = clock()

    @property
    def rate(self) -> float | None:
        """The limit in bytes a second, None for none."""
        return self._rate

    def limit(self, rate: float | None) -> None:
        """Change the limit, from any thread; who waits for the old one waits for the new one."""
        rate = _checked(rate)
        with self._changed:
            self._refill()
            # What a piece of a fast link has cost is not to be paid for slowly: it starts anew.
            self._tokens = 0.0
            self._rate = rate
            self._changed.notify_all()

    def piece(self, most: int) -> int:
        """How many bytes to send at once, at most `most`."""
        rate = self._rate
        return most if rate is None else min(most, max(_PIECE_LEAST, int(rate * _PIECE_S)))

    def delay(self) -> float:
        """How many seconds from now the next piece may be sent."""
        with self._changed:
            return self._delay()

    def wait(self) -> None:
        """Wait until the next piece may be sent, or until `stop`."""
        if self._rate is None:
            return
        with self._changed:
            while not self._stopped and (seconds := self._delay()) > 0:
                self._pause(seconds)

    def spend(self, count: int) -> None:
        """Account for `count` bytes that were sent."""
        if self._rate is not None:
            with self._changed:
                self._refill()
                self._tokens -= count

    def stop(self) -> None:
        """From now on nobody waits any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _delay(self) -> float:
        self._refill()
        if self._rate is None:
            return 0.0
        seconds = -self._tokens / self._rate
        return seconds if seconds > _LEAST_S else 0.0

    def _refill(self) -> None:
        now = self._clock()
        if self._rate is not None:
            earned = self._tokens + (now - self._at) * self._rate
            self._tokens = min(earned, self._rate * _BURST_S)
        self._at = now


def _checked(rate: float | None) -> float | None:
    if rate is not None and not rate > 0:
        raise UsageError(f"the bandwidth is {rate} bytes a second, it must be more than 0")
    return rate
