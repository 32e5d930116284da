import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.policy import StopReason
from phaul.policy.decision import CutOver, Decision, GoOn, Limits, NotConverging, decide
from phaul.policy.prediction import Costs, predict
from tests.unit.policy.rounds import COSTS, MIB, ROUNDS, Round, hot, made, sweep

LIMITS = st.builds(
    Limits, st.floats(1e-3, 1e3), st.integers(0, 20), st.floats(-10, 1e4), st.booleans()
)


def after(rounds: list[Round], limits: Limits, costs: Costs = COSTS) -> Decision:
    return decide(predict(rounds, costs), limits)


def reason(decision: Decision) -> StopReason | None:
    return None if isinstance(decision, GoOn) else decision.verdict.reason


@given(ROUNDS, LIMITS)
def test_it_always_ends(rounds: list[Round], limits: Limits) -> None:
    decision = after(rounds, limits)
    if limits.rounds_left == 0 or limits.seconds_left <= 0:
        assert not isinstance(decision, GoOn)


@given(ROUNDS, LIMITS)
def test_what_is_said_has_figures_and_fits_the_target(rounds: list[Round], limits: Limits) -> None:
    found = predict(rounds, COSTS)
    decision = decide(found, limits)
    if isinstance(decision, CutOver):
        assert decision.verdict.reason is StopReason.TARGET
        assert found.downtime_s <= limits.max_downtime_s
    elif isinstance(decision, NotConverging):
        assert found.downtime_s > limits.max_downtime_s
        assert decision.advice.downtime_s == found.downtime_s
        share = decision.advice.share
        assert share is None or 0 < share <= 1
    if not isinstance(decision, GoOn):
        assert "nan" not in decision.verdict.explanation


@given(ROUNDS, st.floats(1e-3, 1e3), st.floats(1, 10))
def test_a_laxer_target_is_never_refused_where_a_stricter_is_met(
    rounds: list[Round], target: float, times: float
) -> None:
    if isinstance(after(rounds, Limits(target, 0)), CutOver):
        assert isinstance(after(rounds, Limits(target * times, 0)), CutOver)


def test_a_hot_set_that_does_not_fit_is_soon_known() -> None:
    rounds = made(hot(200 * MIB), 4)
    decisions = [after(rounds[:count], Limits(0.3, 16 - count)) for count in range(1, 5)]
    found = next(one for one in decisions if not isinstance(one, GoOn))
    assert decisions.index(found) >= 2
    assert reason(found) is StopReason.NOT_CONVERGING
    assert isinstance(found, NotConverging)
    assert "would not help" in found.verdict.explanation
    assert found.advice.downtime_s == pytest.approx(2.1, rel=0.1)


def test_a_sweep_converges_until_it_fits() -> None:
    rounds = made(sweep(70 * MIB), 12)
    found = [reason(after(rounds[:count], Limits(0.3, 16 - count))) for count in range(1, 13)]
    stop = found.index(StopReason.TARGET)
    assert set(found[:stop]) == {None}
    left = 70 * MIB * (rounds[stop].seconds - 0.01)
    assert left / (100 * MIB) < 0.25


def test_shared_memory_is_no_reason_for_rounds() -> None:
    costs = Costs(1 << 30, 100 * MIB, 1e12)
    found = after(made(hot(MIB), 2), Limits(0.3, 14), costs)
    assert reason(found) is StopReason.NOT_CONVERGING
    assert isinstance(found, NotConverging)
    assert found.advice.share is None  # slowed down it would have as much shared memory


def test_a_glance_is_not_taken_for_a_long_round() -> None:
    quiet = Costs(1 << 30, 0, 1e12, dirty_rate=0.0, dirty_s=0.2)
    rounds = made(hot(0), 2)
    assert isinstance(after(rounds[:1], Limits(0.3, 15), quiet), GoOn)
    assert reason(after(rounds, Limits(0.3, 14), quiet)) is StopReason.TARGET
    longer = Costs(1 << 30, 0, 1e12, dirty_rate=0.0, dirty_s=5.0)
    assert reason(after(rounds[:1], Limits(0.3, 15), longer)) is StopReason.TARGET


def test_nothing_is_given_up_by_a_glance_alone() -> None:
    busy = Costs(1 << 30, 0, 1e12, dirty_rate=300.0 * MIB, dirty_s=5.0)
    rounds = made(sweep(300 * MIB), 2)
    assert isinstance(after(rounds[:1], Limits(0.3, 15), busy), GoOn)
    assert reason(after(rounds, Limits(0.3, 14), busy)) is StopReason.NOT_CONVERGING


def test_the_time_and_the_rounds_end_it() -> None:
    rounds = made(sweep(70 * MIB), 2)
    assert reason(after(rounds, Limits(0.3, 14, 0.0))) is StopReason.TIMEOUT
    assert reason(after(rounds, Limits(0.3, 0))) is StopReason.MOST_ROUNDS
    assert after(rounds, Limits(0.3, 14, math.inf)) == GoOn()


def test_strict_gives_up_what_only_becomes_better() -> None:
    rounds = made(sweep(95 * MIB), 3)
    assert isinstance(after(rounds, Limits(0.3, 10)), GoOn)
    assert reason(after(rounds, Limits(0.3, 10, strict=True))) is StopReason.NOT_CONVERGING
