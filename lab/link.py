"""The cable between the guests.  Runs on the host."""

import math

from . import qemu
from .errors import CommandError, GuestError, LinkError
from .guest import Guest

_MTU_BITS = 64000 * 8
_QUEUE_SECONDS = 0.1
"""Room in the shaper's queue beyond what the delay holds: a router's usual order of size."""
_UNLIMITED_QUEUE = 10_000
_SHORTEST_QUEUE = 64


def queue_packets(rate_mbit: float | None, delay_ms: float) -> int:
    """Return how many packets the shaper holds: what is delayed, and 100 ms at the rate.

    Too many would let the queue, not the delay, decide the latency: netem's usual 1000 of these
    64,000-byte packets are five seconds at 100 Mbit/s.
    """
    if not rate_mbit:
        return _UNLIMITED_QUEUE
    packets = rate_mbit * 1e6 * (delay_ms / 1000 + _QUEUE_SECONDS) / _MTU_BITS
    return max(_SHORTEST_QUEUE, math.ceil(packets))


class Link:
    """The private link: shaped by the guests' own kernels, cut by QEMU."""

    def __init__(self, *ends: Guest) -> None:
        """Know both ends."""
        self._ends = ends

    def shape(
        self, rate_mbit: float | None = None, delay_ms: float = 0, loss_percent: float = 0
    ) -> None:
        """Shape both directions alike, each at its sender; replaces an earlier shape.

        Args:
            rate_mbit: a direction's rate; None leaves it as fast as the emulation is.
            delay_ms: of a direction, so that a round trip takes twice as long.
            loss_percent: of packets, which are up to 64,000 bytes long here.

        Raises:
            LinkError: a guest is down or refuses.
        """
        words = ["limit", str(queue_packets(rate_mbit, delay_ms))]
        if delay_ms:
            words += ["delay", f"{delay_ms}ms"]
        if loss_percent:
            words += ["loss", f"{loss_percent}%"]
        if rate_mbit:
            words += ["rate", f"{rate_mbit}mbit"]
        self._everywhere("tc", "qdisc", "replace", "dev", "lan", "root", "netem", *words)

    def clear(self) -> None:
        """Take the shape away."""
        self._everywhere("sh", "-c", "tc qdisc show dev lan | grep -q netem || exit 0; "
                         "tc qdisc del dev lan root")  # fmt: skip

    def cut(self) -> None:
        """Pull the cable: both guests lose their carrier, packets are lost."""
        self._set(up=False)

    def join(self) -> None:
        """Plug it in again."""
        self._set(up=True)

    def _everywhere(self, *argv: str) -> None:
        for guest in self._ends:
            try:
                guest.run(argv, timeout=20, check=True)
            except (CommandError, GuestError) as error:
                raise LinkError(f"link, {guest.name}'s end: {error}") from error

    def _set(self, *, up: bool) -> None:
        for guest in self._ends:
            if guest.running:  # one that is booted anew comes with its cable plugged in
                try:
                    qemu.monitor(guest.monitor, "set_link", name="lancard", up=up)
                except GuestError as error:
                    raise LinkError(f"link, {guest.name}'s end: {error}") from error
