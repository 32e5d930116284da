import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.plan import OnTimeout, Restoring, Way, Wishes
from phaul.plan.predict import make_plan
from phaul.policy.prediction import Costs

COSTS = st.builds(
    Costs,
    memory_bytes=st.integers(0, 1 << 40),
    shared_bytes=st.integers(0, 1 << 34),
    restore_rate=st.floats(1e3, 1e12),
    dirty_rate=st.none() | st.floats(0, 1e12),
    bandwidth=st.floats(1e3, 1e12),
)


@given(COSTS, st.booleans())
def test_any_plan_has_figures_and_reasons(costs: Costs, tracked: bool) -> None:
    plan = make_plan(costs, Wishes(), tracked=tracked)
    assert plan.way is (Way.PRE_COPY if tracked else Way.STOP_AND_COPY)
    assert (plan.rounds > 0) == tracked
    assert 0 < plan.downtime_s <= plan.seconds
    assert plan.because


@given(COSTS)
def test_it_never_plans_more_rounds_than_are_allowed(costs: Costs) -> None:
    assert make_plan(costs, Wishes(max_rounds=3), tracked=True).rounds <= 3


@given(COSTS, st.booleans())
def test_what_follows_needs_no_rounds_and_both_hosts(costs: Costs, tracked: bool) -> None:
    plan = make_plan(costs, Wishes(post_copy=True), tracked=tracked, leaves_all=True)
    assert plan.way is Way.POST_COPY
    assert plan.rounds == 0
    assert 0 < plan.downtime_s <= plan.seconds
    assert any("both hosts are needed" in line for line in plan.because)


def test_what_may_come_to_it_says_so() -> None:
    costs = Costs(1 << 30, 0, 1e9)
    plan = make_plan(costs, Wishes(on_timeout=OnTimeout.POSTCOPY), tracked=True)
    assert plan.way is Way.PRE_COPY
    assert any("both hosts are needed" in line for line in plan.because)


def test_what_follows_is_not_restored_in_full() -> None:
    for more in ({"post_copy": True}, {"on_timeout": OnTimeout.POSTCOPY}):
        with pytest.raises(UsageError, match="cannot be restored in full"):
            Wishes(restore=Restoring.FULL, **more)


def test_stop_and_copy_says_why() -> None:
    plan = make_plan(Costs(1 << 30, 0, 1e9), Wishes(), tracked=False)
    assert "soft-dirty" in plan.reason
    assert plan.downtime_s > (1 << 30) / 1e9


def test_a_quiet_process_needs_one_round_and_a_busy_one_more() -> None:
    quiet = Costs(1 << 30, 0, 1e12, dirty_rate=0.0)
    busy = Costs(1 << 30, 0, 1e12, dirty_rate=50e6)
    assert make_plan(quiet, Wishes(), tracked=True).rounds == 1
    assert make_plan(busy, Wishes(), tracked=True).rounds > 1


def test_shared_memory_counts_into_the_downtime() -> None:
    without = make_plan(Costs(1 << 30, 0, 1e9), Wishes(), tracked=True)
    shared = make_plan(Costs(1 << 30, 1 << 28, 1e9), Wishes(), tracked=True)
    assert shared.downtime_s > without.downtime_s + 1
    assert any("shared" in line for line in shared.because)


def test_what_is_split_is_said_with_what_it_changes_on_the_machine() -> None:
    costs = Costs(1 << 30, 0, 1e9, dirty_rate=1e6)
    plan = make_plan(costs, Wishes(split_huge_pages=True), tracked=True, splits=64 << 20, times=99)
    assert any(
        "64.0 MiB of huge pages are split" in line and "on the whole machine" in line
        for line in plan.because
    )
    assert "when its huge pages are split" in plan.because[0]


def test_what_huge_pages_add_is_said() -> None:
    costs = Costs(1 << 30, 0, 1e9, dirty_rate=50e6)
    plan = make_plan(costs, Wishes(), tracked=True, times=99.4)
    assert "huge pages count whole, about 99 times what is written" in plan.because[0]
    assert "huge" not in make_plan(costs, Wishes(), tracked=True, times=1.1).because[0]
