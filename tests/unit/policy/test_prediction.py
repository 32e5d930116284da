from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.policy.prediction import Costs, expect_rounds, predict


@dataclass(frozen=True)
class Round:
    sent_bytes: int
    seconds: float
    begun_s: float
    frozen_s: float = 0.01


ROUNDS = st.lists(
    st.builds(
        Round,
        st.integers(0, 1 << 40),
        st.floats(0.001, 1e4),
        st.floats(0, 1e6),
        st.floats(0, 10),
    ),
    min_size=1,
    max_size=8,
)
COSTS = Costs(memory_bytes=1 << 30, shared_bytes=0, restore_rate=1e9)


@given(ROUNDS)
def test_any_rounds_give_figures(rounds: list[Round]) -> None:
    found = predict(rounds, COSTS)
    assert 0 < found.downtime_s < float("inf")
    assert found.bandwidth > 0
    assert found.dirty_rate is None or found.dirty_rate >= 0


def test_after_one_round_everything_may_be_dirty() -> None:
    found = predict([Round(1 << 30, 10.0, 0.0)], COSTS)
    assert found.dirty_rate is None
    assert found.downtime_s > 10


def test_preflight_s_rate_serves_until_a_round_tells() -> None:
    costs = Costs(1 << 30, 0, 1e9, dirty_rate=1e6)
    assert predict([Round(1 << 30, 10.0, 0.0)], costs).dirty_rate == 1e6
    assert predict([Round(1 << 30, 10.0, 0.0), Round(1 << 20, 0.1, 10.0)], costs).dirty_rate == (
        pytest.approx((1 << 20) / 10)
    )


def test_a_smaller_round_makes_a_shorter_downtime() -> None:
    first = Round(1 << 30, 10.0, 0.0)
    big, small = Round(1 << 28, 2.5, 10.0), Round(1 << 22, 0.1, 10.0)
    assert predict([first, small], COSTS).downtime_s < predict([first, big], COSTS).downtime_s


def test_what_the_restore_reads_is_in_it() -> None:
    rounds = [Round(1 << 30, 10.0, 0.0), Round(1 << 20, 0.1, 10.0)]
    assert predict(rounds, COSTS).downtime_s > (1 << 30) / 1e9


@given(st.floats(0, 1e12), st.floats(0.01, 100), st.integers(1, 30))
def test_expected_rounds_are_bounded(rate: float, target: float, most: int) -> None:
    rounds, seconds, downtime = expect_rounds(Costs(1 << 30, 0, 1e9, dirty_rate=rate), target, most)
    assert 1 <= rounds <= most
    assert 0 < downtime <= seconds
