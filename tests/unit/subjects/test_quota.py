"""The arithmetic of `cpu.max`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.subjects.quota import UNLIMITED, Quota, parse, quota_for, tighter

cpus = st.floats(0.0, 1e5, allow_nan=False)
quotas = st.builds(Quota, st.integers(1000, 10**9), st.integers(1000, 10**6))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (1.0, "20000 20000"),
        (0.4, "8000 20000"),
        (2.5, "50000 20000"),
        (0.05, "1000 20000"),
        (0.01, "1000 100000"),
        (0.0, "1000 1000000"),
    ],
)
def test_so_many_processors(asked: float, text: str) -> None:
    assert str(quota_for(asked)) == text


@given(cpus)
def test_the_kernel_takes_it_and_it_is_what_was_asked_for(asked: float) -> None:
    quota = quota_for(asked)
    assert quota.quota_us >= 1_000
    assert 1_000 <= quota.period_us <= 1_000_000
    assert parse(str(quota)) == quota
    if 0.001 <= asked <= 8192:
        assert quota.cpus == pytest.approx(asked, rel=0.03)


@given(cpus, cpus)
def test_more_is_never_less(some: float, more: float) -> None:
    some, more = sorted((some, more))
    assert quota_for(some).cpus <= quota_for(more).cpus * 1.001


@given(cpus, st.one_of(st.none(), quotas))
def test_a_limit_that_was_there_is_never_raised(asked: float, there: Quota | None) -> None:
    ours = quota_for(asked)
    before = UNLIMITED if there is None else str(there)
    found = parse(tighter(ours, before))
    assert found is not None
    assert found.cpus <= ours.cpus
    assert there is None or found.cpus <= there.cpus
    assert found in (ours, there)


@pytest.mark.parametrize("text", ["", "max", "5 0", "-5 100", "1 2 3", "5000 1e5", "max\n100000"])
def test_what_the_kernel_never_says(text: str) -> None:
    with pytest.raises(ValueError, match="no limit"):
        parse(text)
