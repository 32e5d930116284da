import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.policy import StopReason, Verdict
from phaul.policy.choice import Cancel, Choice, PostCopy, Throttle, act
from phaul.policy.decision import Advice, CutOver, GoOn, NotConverging

VERDICT = Verdict(StopReason.NOT_CONVERGING, "it does not")
STUCK = NotConverging(VERDICT, Advice(1.5, 0.2))


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("decision", [GoOn(), CutOver(VERDICT)])
def test_what_converges_is_nobody_s_choice(decision: GoOn | CutOver, choice: Choice) -> None:
    assert act(decision, choice) == decision


def test_each_choice_is_followed() -> None:
    assert act(STUCK, Choice.CUT_OVER) == CutOver(VERDICT)
    assert act(STUCK, Choice.POST_COPY) == PostCopy(VERDICT)
    assert act(STUCK, Choice.CANCEL) == Cancel(VERDICT, 1.5)
    assert act(STUCK, Choice.THROTTLE) == Throttle(0.5, VERDICT)
    assert act(STUCK, Choice.THROTTLE, 0.3) == Throttle(0.2, VERDICT)


def test_what_slowing_down_cannot_bring_is_given_up() -> None:
    hopeless = NotConverging(VERDICT, Advice(1.5, None))
    assert act(hopeless, Choice.THROTTLE) == Cancel(VERDICT, 1.5)


@given(st.floats(0.05, 1), st.floats(0.05, 1))
def test_slowing_down_never_speeds_up(now: float, needed: float) -> None:
    needed = min(needed, now * 0.9)
    if needed >= 0.05:
        action = act(NotConverging(VERDICT, Advice(1.5, needed)), Choice.THROTTLE, now)
        assert isinstance(action, Throttle)
        assert action.share < now
