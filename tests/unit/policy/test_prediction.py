import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.policy.pace import Pace
from phaul.policy.prediction import Costs, expect_rounds, forecast, predict
from tests.unit.policy.rounds import COSTS, MIB, ROUNDS, Round, hot, made, sweep


@given(ROUNDS)
def test_any_rounds_give_figures(rounds: list[Round]) -> None:
    found = predict(rounds, COSTS)
    assert 0 < found.downtime_s < float("inf")
    assert found.bandwidth > 0
    assert found.dirty_rate is None or found.dirty_rate >= 0
    assert found.downtime_s <= found.most_s
    assert found.pace.round_s >= 0


def test_after_one_round_everything_may_be_dirty() -> None:
    found = predict([Round(1 << 30, 10.0, 0.0)], COSTS)
    assert found.dirty_rate is None
    assert found.downtime_s > 10


def test_preflight_s_rate_serves_until_a_round_tells() -> None:
    costs = Costs(1 << 30, 0, 1e9, dirty_rate=1e6)
    assert predict([Round(1 << 30, 10.0, 0.0)], costs).dirty_rate == pytest.approx(1e6)
    assert predict([Round(1 << 30, 10.0, 0.0), Round(1 << 20, 0.1, 10.0)], costs).dirty_rate == (
        pytest.approx((1 << 20) / 9.99)
    )


def test_a_smaller_round_makes_a_shorter_downtime() -> None:
    first = Round(1 << 30, 10.0, 0.0)
    big, small = Round(1 << 28, 2.5, 10.0), Round(1 << 22, 0.1, 10.0)
    assert predict([first, small], COSTS).downtime_s < predict([first, big], COSTS).downtime_s


def test_a_lazy_restore_does_not_grow_with_the_memory() -> None:
    small, large = (Costs(memory, 0, 1e9, lazy=True) for memory in (1 << 20, 1 << 36))
    assert small.restore_s == small.full_restore_s
    assert not small.restores_lazily
    assert large.restores_lazily
    assert large.restore_s < 0.1
    assert Costs(1 << 36, 1 << 30, 1e9, lazy=True).restore_s > 1  # shared memory is never lazy


def test_what_the_restore_reads_is_in_it() -> None:
    rounds = [Round(1 << 30, 10.0, 0.0), Round(1 << 20, 0.1, 10.0)]
    assert predict(rounds, Costs(1 << 30, 0, 1e9)).downtime_s > (1 << 30) / 1e9


def test_shared_memory_is_always_dirty() -> None:
    rounds = made(hot(MIB), 3)
    without, with_it = (predict(rounds, Costs(1 << 30, shared, 1e12)) for shared in (0, 50 * MIB))
    assert with_it.downtime_s - without.downtime_s == pytest.approx(0.5, rel=0.05)


def test_what_a_round_costs_beside_its_bytes_is_no_bandwidth() -> None:
    for beside in (0.01, 0.08, 0.4):
        pace = predict(made(hot(MIB), 6, beside=beside), COSTS).pace
        assert pace.bandwidth == pytest.approx(100 * MIB, rel=0.1)
        assert pace.round_s == pytest.approx(beside, rel=0.15, abs=0.005)


def test_a_hot_set_is_dirty_again_in_no_time() -> None:
    rounds = made(hot(10 * MIB), 3)
    left = predict(rounds, COSTS).downtime_s - predict(rounds, COSTS).pace.cutover_s
    assert left == pytest.approx(0.1, rel=0.1)


def test_a_slower_link_is_noticed() -> None:
    rounds = made(sweep(30 * MIB), 3)
    last = rounds[-1]
    slowed = Round(last.sent_bytes, last.seconds * 4, last.begun_s)
    now = predict([*rounds[:-1], slowed], COSTS)
    assert now.bandwidth < 0.6 * predict(rounds, COSTS).bandwidth


PACES = st.builds(
    Pace, st.floats(1e3, 1e12), st.floats(0, 10), st.just(0.0), st.floats(0.01, 10), st.just(1.0)
)


@given(st.floats(0, 1e9), PACES, st.floats(0, 1e4), st.integers(0, 20), st.floats(0, 1e4))
def test_a_forecast_has_a_figure_for_now_and_at_most_one_a_round(
    rate: float, pace: Pace, interval: float, rounds: int, seconds: float
) -> None:
    downtimes = forecast(lambda t: min(rate * t, 1e9), pace, interval, rounds, seconds)
    assert 1 <= len(downtimes) <= rounds + 1
    assert all(pace.cutover_s <= downtime < float("inf") for downtime in downtimes)


@given(st.floats(0, 1e12), st.floats(0.01, 100), st.integers(1, 30))
def test_expected_rounds_are_bounded(rate: float, target: float, most: int) -> None:
    rounds, seconds, downtime = expect_rounds(Costs(1 << 30, 0, 1e9, dirty_rate=rate), target, most)
    assert 1 <= rounds <= most
    assert 0 < downtime <= seconds
