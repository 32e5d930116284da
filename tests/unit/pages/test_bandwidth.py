"""The limit holds to the byte by a clock of the test's own."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.pages.bandwidth import Bandwidth


class Clock:
    """A clock that goes on when somebody waits, and a little later than asked for."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 1000.0
        self.late = late

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds + self.late

    def limit(self, rate: float | None) -> Bandwidth:
        return Bandwidth(rate, self, self.pause)


def send(bandwidth: Bandwidth, clock: Clock, seconds: float) -> int:
    """Send as fast as it lets us, for so long; returns the bytes."""
    sent = 0
    end = clock.now + seconds
    while True:
        piece = bandwidth.piece(1 << 20)
        bandwidth.wait()
        if clock.now >= end:
            return sent
        bandwidth.spend(piece)
        sent += piece


@pytest.mark.parametrize("rate", [100e3, 1e6, 12.5e6, 125e6, 10e9])
@pytest.mark.parametrize("late", [0.0, 0.03])
def test_it_is_exact_within_a_twentieth(rate: float, late: float) -> None:
    clock = Clock(late)
    assert send(clock.limit(rate), clock, 5) == pytest.approx(5 * rate, rel=0.05)


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(1e5, 1e9), min_size=1, max_size=4),
    late=st.floats(0, 0.05),
)
def test_it_is_changed_while_it_runs(rates: list[float], late: float) -> None:
    clock = Clock(late)
    bandwidth = clock.limit(1e6)
    for rate in rates:
        bandwidth.limit(rate)
        assert bandwidth.rate == rate
        assert send(bandwidth, clock, 4) == pytest.approx(4 * rate, rel=0.05)


def test_an_idle_sender_saves_up_little() -> None:
    clock = Clock()
    bandwidth = clock.limit(1e6)
    clock.now += 3600
    assert send(bandwidth, clock, 3) == pytest.approx(3e6, rel=0.05)


def test_no_limit() -> None:
    clock = Clock()
    bandwidth = clock.limit(None)
    bandwidth.spend(1 << 40)
    bandwidth.wait()
    assert clock.now == 1000
    assert bandwidth.delay() == 0
    assert bandwidth.piece(77) == 77


def test_who_waits_is_told_of_a_change_and_of_the_end() -> None:
    wakes: list[Callable[[Bandwidth], None]] = [
        lambda bandwidth: bandwidth.limit(1e12),
        lambda bandwidth: bandwidth.limit(None),
        lambda bandwidth: bandwidth.stop(),
    ]
    for wake in wakes:
        bandwidth = Bandwidth(1.0)
        bandwidth.spend(1 << 30)
        waiter = threading.Thread(target=bandwidth.wait)
        waiter.start()
        wake(bandwidth)
        waiter.join(60)
        assert not waiter.is_alive()


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_what_is_no_rate(rate: float) -> None:
    with pytest.raises(UsageError, match="more than 0"):
        Bandwidth(rate)
    with pytest.raises(UsageError):
        Bandwidth().limit(rate)
