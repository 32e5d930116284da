import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.report.html.svg import Linear, Log, byte_ticks, nice_ticks, second_ticks

VALUES = st.lists(st.floats(1, 1e9), min_size=1, max_size=60)


@given(st.floats(0, 1e9), st.integers(1, 10))
def test_ticks_lie_below_the_end(high: float, most: int) -> None:
    ticks = nice_ticks(high, most)
    assert ticks[0] == 0
    assert len(ticks) <= most + 2
    assert all(tick <= high * 1.001 for tick in ticks)


@pytest.mark.parametrize("ticks_of", [byte_ticks, second_ticks])
@given(values=VALUES)
def test_ticks_reach_around_all(ticks_of: object, values: list[float]) -> None:
    assert callable(ticks_of)
    ticks = ticks_of(values)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= min(values) * 1.001
    assert ticks[-1] >= max(values) * 0.999
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize("ticks_of", [byte_ticks, second_ticks])
def test_ticks_of_nothing(ticks_of: object) -> None:
    assert callable(ticks_of)
    assert len(ticks_of([])) == 2
    assert len(ticks_of([0.0])) == 2


@pytest.mark.parametrize("ticks_of", [byte_ticks, second_ticks])
def test_ticks_of_what_cannot_be_meant(ticks_of: object) -> None:
    assert callable(ticks_of)
    for ticks in (ticks_of([5e-324]), ticks_of([1.7e308]), ticks_of([5e-324, 1.7e308])):
        assert 0 < ticks[0] < ticks[-1] < 1e20


@given(st.floats(allow_nan=False), st.sampled_from([Linear, Log]))
def test_nothing_is_drawn_outside(value: float, scale: type[Linear] | type[Log]) -> None:
    assert 100 >= scale(1.0, 1000.0, 100.0, 20.0)(value) >= 20


def test_the_middle() -> None:
    assert Linear(0, 10, 0, 100)(5) == 50
    assert Log(1, 100, 0, 100)(10) == pytest.approx(50)
    assert Linear(5, 5, 7, 100)(5) == 7
