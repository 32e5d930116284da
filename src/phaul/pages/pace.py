"""Whether there is time to compress: only while the network has enough to send already.  Pure.

Used on the source by the relay, for each piece of memory where compression is AUTO.
"""

from typing import Final

__all__ = ["Pace"]

_WEIGHT: Final = 0.25
"""Of a new measurement, against those before it."""
_FIRST_S_PER_BYTE: Final = 1 / 300e6
"""How long it takes to compress a byte, until that was measured."""
_AGAIN: Final = 16
"""After so many compressed pieces one is sent as it is: only those show the network's speed."""


class Pace:
    """Learns how fast the network and the compression are.

    While the network is busy with what was sent before, to compress costs no time, whatever it
    gains; when it would have to wait for us, the smaller size must make up for that.
    """

    def __init__(self) -> None:
        self._packing = _FIRST_S_PER_BYTE
        self._size = 1.0  # of a compressed byte
        self._sending: float | None = None
        self._packed = 0

    def allows(self, count: int, queued: int, delay: float, rate: float | None) -> bool:
        """Whether to compress `count` bytes.

        `queued` bytes are still to be sent by the kernel, and for `delay` seconds the limit of
        `rate` bytes a second forbids to send more.
        """
        limit = 1 / rate if rate else 0.0
        if delay >= self._packing * count or self._gains(limit):
            return True
        if self._sending is None or self._packed >= _AGAIN:
            return False
        busy = queued * self._sending + delay
        return busy >= self._packing * count or self._gains(max(self._sending, limit))

    def _gains(self, sending: float) -> bool:
        """Whether a byte arrives sooner compressed, where to send one takes so long."""
        return self._packing + self._size * sending < sending

    def packed(self, count: int, size: int, seconds: float) -> None:
        """To compress `count` bytes to `size` took so long."""
        self._packed += 1
        self._packing += _WEIGHT * (seconds / count - self._packing)
        self._size += _WEIGHT * (size / count - self._size)

    def sent(self, count: int, seconds: float, *, blocked: bool) -> None:
        """To send `count` bytes as they were took so long; `blocked` if nothing more had room."""
        self._packed = 0
        if blocked:
            now = seconds / count
            before = now if self._sending is None else self._sending
            self._sending = before + _WEIGHT * (now - before)
