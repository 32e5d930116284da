import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.policy.working_set import Sample, fit

MIB = 1 << 20
SECONDS = st.floats(0, 1e5)
SAMPLES = st.lists(
    st.builds(Sample, SECONDS, st.floats(0, 1 << 42)),
    min_size=1,
    max_size=17,
)
MEMORY = st.integers(0, 1 << 42)


@given(SAMPLES, MEMORY, SECONDS, SECONDS)
def test_it_rises_and_is_never_more_than_all_memory(
    samples: list[Sample], memory: int, one: float, other: float
) -> None:
    found = fit(samples, memory)
    early, late = sorted((one, other))
    # The mean is a sum of rounded products.
    most = memory * (1 + 1e-9)
    for dirty in (found.at_least, found.likely, found.at_most):
        assert 0 <= dirty(early) <= dirty(late) * (1 + 1e-9) <= most * (1 + 1e-9)
    assert found.at_least(late) <= found.at_most(late)


@given(SAMPLES, MEMORY, SECONDS)
def test_nothing_else_than_numbers_comes_of_it(
    samples: list[Sample], memory: int, at: float
) -> None:
    found = fit(samples, memory)
    for dirty in (found.at_least, found.likely, found.at_most):
        assert math.isfinite(dirty(at))
        assert dirty(0) == 0


@given(SAMPLES, st.floats(0.01, 100), st.floats(1.1, 10))
def test_a_longer_time_never_dirties_more_than_in_proportion(
    samples: list[Sample], at: float, times: float
) -> None:
    found = fit(samples, 1 << 42)
    for dirty in (found.at_least, found.likely, found.at_most):
        assert dirty(at * times) <= dirty(at) * times * (1 + 1e-6)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 30.0])
def test_what_was_seen_is_what_is_likely_then(seconds: float) -> None:
    found = fit([Sample(seconds, 20 * MIB)], 1 << 30)
    for dirty in (found.at_least, found.likely, found.at_most):
        assert dirty(seconds) == pytest.approx(20 * MIB, rel=1e-6)


def test_one_sample_leaves_open_how_it_bends() -> None:
    found = fit([Sample(10.0, 20 * MIB)], 1 << 30)
    assert found.at_least(0.2) < 1 * MIB
    assert found.at_most(0.2) > 15 * MIB


def test_a_hot_set_and_a_sweep_are_told_apart_by_two() -> None:
    hot = fit([Sample(10.0, 20 * MIB), Sample(0.2, 20 * MIB)], 1 << 30)
    sweep = fit([Sample(10.0, 200 * MIB), Sample(2.0, 40 * MIB)], 1 << 30)
    assert hot.likely(1.0) == pytest.approx(20 * MIB, rel=0.1)
    assert hot.at_least(0.2) == pytest.approx(20 * MIB, rel=0.1)
    assert sweep.likely(0.4) == pytest.approx(8 * MIB, rel=0.2)


def test_the_newest_counts_most() -> None:
    quieter = fit([Sample(1.0, 100 * MIB), Sample(1.0, 10 * MIB)], 1 << 30)
    busier = fit([Sample(1.0, 10 * MIB), Sample(1.0, 100 * MIB)], 1 << 30)
    assert quieter.likely(1.0) < math.sqrt(1000) * MIB < busier.likely(1.0)


@given(st.floats(0.02, 20), st.integers(1, 64))
def test_a_process_that_writes_at_random_is_predicted(knee: float, size: int) -> None:
    def really(seconds: float) -> float:
        return size * MIB * -math.expm1(-seconds / knee)

    found = fit([Sample(t, really(t)) for t in (0.3, 8.0, 1.5)], 1 << 30)
    assert really(0.5) / 1.5 < found.likely(0.5) < really(0.5) * 1.5
