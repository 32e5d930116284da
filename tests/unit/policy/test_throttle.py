from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.policy.prediction import Prediction, forecast, predict
from phaul.policy.throttle import LEAST_SHARE, needed_share, next_share
from tests.unit.policy.rounds import COSTS, MIB, ROUNDS, Round, hot, made, sweep

SHARES = st.floats(LEAST_SHARE, 1)


@settings(max_examples=30)
@given(ROUNDS, st.floats(1e-3, 1e3), st.integers(1, 20))
def test_the_share_is_within_its_bounds(rounds: list[Round], target: float, left: int) -> None:
    share = needed_share(predict(rounds, COSTS), target, left, 1e4)
    assert share is None or LEAST_SHARE <= share <= 1


@given(SHARES, SHARES)
def test_a_step_halves_at_most_and_ends_at_what_is_needed(now: float, needed: float) -> None:
    steps = [now]
    while steps[-1] > needed:
        steps.append(next_share(steps[-1], needed))
        assert steps[-1] >= max(steps[-2] / 2, LEAST_SHARE)
        assert steps[-1] < steps[-2]
    assert len(steps) <= 6


def swept(rate: int) -> Prediction:
    """After three rounds of a sweep that preflight has glanced at."""
    costs = replace(COSTS, dirty_rate=rate * MIB, dirty_s=0.2)
    return predict(made(sweep(rate * MIB), 3), costs)


def fitting(found: Prediction, share: float) -> float:
    assert found.working_set is not None
    pace = replace(found.pace, share=share)
    return min(forecast(found.working_set.likely, pace, found.interval_s, 6, 1e4))


def test_what_is_needed_would_do_and_little_more_would_not() -> None:
    found = swept(150)
    share = needed_share(found, 0.3, 10, 1e4)
    assert share is not None
    assert LEAST_SHARE < share < 100 / 150
    assert fitting(found, share) <= 0.3 < fitting(found, share / 0.8)


def test_the_faster_it_dirties_the_less_it_may_have() -> None:
    slow, fast = (needed_share(swept(rate), 0.3, 10, 1e4) for rate in (150, 500))
    assert slow is not None
    assert fast is not None
    assert fast < slow


def test_without_knowledge_there_is_no_share() -> None:
    assert needed_share(predict(made(hot(MIB), 1), COSTS), 0.3, 10, 1e4) is None


def test_a_process_that_is_slowed_down_is_predicted_so() -> None:
    rounds = made(sweep(150 * MIB), 3)
    full = predict(rounds, COSTS)
    # The same rounds of a process with half its time: it would dirty twice as much with all.
    half = predict(rounds, COSTS, [0.5] * 3)
    assert half.dirty_rate is not None
    assert full.dirty_rate is not None
    assert abs(half.dirty_rate - 2 * full.dirty_rate) < 1
    assert abs(half.downtime_s - full.downtime_s) < 0.1 * full.downtime_s
