import msgspec
import pytest

from phaul.errors import NotConverged
from phaul.plan import OnTimeout, Wishes
from phaul.policy import StopReason, Verdict
from phaul.policy.prediction import Costs
from phaul.report import Round
from phaul.source.convergence import DowntimeJudge

COSTS = Costs(memory_bytes=1 << 28, shared_bytes=0, restore_rate=1e10)
MIB = 256


def rounds(*pages: int) -> list[Round]:
    """Rounds at 100 MiB/s, each sending what it says."""
    made, begun = [], 0.0
    for number, count in enumerate(pages):
        seconds = 0.01 + count / (100 * MIB)
        made.append(
            Round(
                number=number,
                pages=count,
                shared_pages=0,
                skipped_pages=0,
                frozen_s=0.005,
                seconds=seconds,
                begun_s=begun,
            )
        )
        begun += seconds
    return made


def decide(wishes: Wishes, *pages: int, now: float = 1.0) -> Verdict | None:
    """The verdict on the last of the rounds; those before it went on."""
    judge = DowntimeJudge(wishes, COSTS, 0.0, "host1", clock=lambda: now)
    made = rounds(*pages)
    for count in range(1, len(made)):
        assert judge.judge(made[:count])[1] is None
    return judge.judge(made)[1]


def test_it_ends_where_the_target_is_met() -> None:
    verdict = decide(Wishes(max_downtime_s=0.3), 256 * MIB, 20 * MIB)
    assert verdict is not None
    assert verdict.reason is StopReason.TARGET
    assert "300 ms was asked for" in verdict.explanation


def test_it_goes_on_while_that_helps() -> None:
    assert decide(Wishes(), 256 * MIB, 128 * MIB, 64 * MIB) is None


def test_what_does_not_converge_is_refused_with_a_remedy() -> None:
    with pytest.raises(NotConverged, match="would not help") as caught:
        decide(Wishes(), 256 * MIB, 256 * MIB)
    assert caught.value.exit_code == 6
    assert "--max-downtime" in caught.value.remedy
    assert "--on-timeout cutover" in caught.value.remedy


def test_or_cut_over_if_that_was_asked_for() -> None:
    verdict = decide(Wishes(on_timeout=OnTimeout.CUTOVER), 256 * MIB, 256 * MIB)
    assert verdict is not None
    assert verdict.reason is StopReason.NOT_CONVERGING


def test_the_most_rounds_and_the_time() -> None:
    wishes = Wishes(on_timeout=OnTimeout.CUTOVER, max_rounds=2, timeout_s=60)
    most = decide(wishes, 256 * MIB, 128 * MIB)
    late = decide(wishes, 256 * MIB, now=61.0)
    assert most is not None
    assert most.reason is StopReason.MOST_ROUNDS
    assert late is not None
    assert late.reason is StopReason.TIMEOUT


def test_a_target_that_is_changed_under_way_counts() -> None:
    judge = DowntimeJudge(Wishes(), COSTS, 0.0, "host1", clock=lambda: 1.0)
    made = rounds(256 * MIB, 128 * MIB)
    assert judge.judge(made[:1])[1] is None
    judge.max_downtime_s = 60
    last, verdict = judge.judge(made)
    assert verdict is not None
    assert verdict.reason is StopReason.TARGET
    assert last.predicted_downtime_s
    assert last.dirty_rate


def slower(count: int, share: float, *, pages: int = 0) -> Round:
    """A round with a share of the CPU time, as `rounds` makes them."""
    made = rounds(*[256 * MIB] * count, pages)[-1]
    return msgspec.structs.replace(made, share=share)


def throttling(**changes: float) -> DowntimeJudge:
    wishes = Wishes(on_timeout=OnTimeout.THROTTLE, **changes)  # type: ignore[arg-type]
    return DowntimeJudge(wishes, COSTS, 0.0, "host1", clock=lambda: 1.0)


def test_or_slowed_down_if_that_was_asked_for() -> None:
    judge = throttling()
    made = rounds(256 * MIB, 256 * MIB)
    assert judge.judge(made[:1])[1] is None
    assert judge.share == 1
    assert judge.judge(made)[1] is None
    first = judge.share
    assert 0.5 <= first < 1, "by a half at most"
    made.append(slower(2, first, pages=256 * MIB))
    last, verdict = judge.judge(made)
    assert verdict is None
    assert judge.share < first
    assert last.share == first


def test_slow_enough_it_converges() -> None:
    judge = throttling()
    made = rounds(256 * MIB, 256 * MIB)
    judge.judge(made)
    share = judge.share
    made.append(slower(2, share, pages=128 * MIB))
    made.append(slower(3, share, pages=20 * MIB))
    assert judge.judge(made)[1] is None
    made.append(slower(4, share, pages=4 * MIB))
    _, verdict = judge.judge(made)
    assert verdict is not None
    assert verdict.reason is StopReason.TARGET
    assert judge.share <= share


def test_what_is_shown_is_what_it_dirties_while_it_is_slow() -> None:
    judge = throttling()
    made = rounds(256 * MIB, 256 * MIB)
    full, _ = judge.judge(made)
    made[1] = msgspec.structs.replace(made[1], share=0.5)
    slow, _ = judge.judge([*made, slower(2, 0.5, pages=128 * MIB)])
    assert full.dirty_rate == pytest.approx(100 << 20, rel=0.02)
    assert slow.dirty_rate == pytest.approx(50 << 20, rel=0.02)


def test_where_no_share_would_do_it_is_given_up() -> None:
    judge = throttling(max_downtime_s=0.05)
    with pytest.raises(NotConverged, match="did not come to the downtime") as caught:
        judge.judge(rounds(256 * MIB, 256 * MIB))
    assert caught.value.what.endswith("would not help, not even slowed to 5 % of its CPU time")
    assert "throttle" not in caught.value.remedy


def test_when_the_time_is_over_it_is_given_up_though_it_is_slow() -> None:
    judge = throttling(timeout_s=0.5)
    judge.share = 0.3
    with pytest.raises(NotConverged) as caught:
        judge.judge(rounds(256 * MIB, 256 * MIB))
    assert "slowed to 30 % of its CPU time: " in caught.value.what
    assert caught.value.what.endswith("and the time is over")


def test_or_let_the_rest_follow() -> None:
    wishes = Wishes(on_timeout=OnTimeout.POSTCOPY)
    judge = DowntimeJudge(wishes, COSTS, 0.0, "host1", clock=lambda: 1.0)
    made = rounds(256 * MIB, 256 * MIB)
    assert judge.judge(made[:1])[1] is None
    assert not judge.leaves
    verdict = judge.judge(made)[1]
    assert verdict is not None
    assert verdict.reason is StopReason.NOT_CONVERGING
    assert judge.leaves


def test_nothing_is_left_where_the_target_is_met() -> None:
    wishes = Wishes(on_timeout=OnTimeout.POSTCOPY)
    judge = DowntimeJudge(wishes, COSTS, 0.0, "host1", clock=lambda: 1.0)
    made = rounds(256 * MIB, 20 * MIB)
    assert judge.judge(made[:1])[1] is None
    verdict = judge.judge(made)[1]
    assert verdict is not None
    assert verdict.reason is StopReason.TARGET
    assert not judge.leaves


@pytest.mark.parametrize("can_split", [True, False])
def test_what_huge_pages_add_is_named_where_it_can_be_helped(can_split: bool) -> None:
    judge = DowntimeJudge(Wishes(), COSTS, 0.0, "host1", clock=lambda: 1.0, can_split=can_split)
    made = rounds(256 * MIB, 256 * MIB)
    made[-1] = msgspec.structs.replace(made[-1], huge_bytes=256 << 20, amplification=90.0)
    with pytest.raises(NotConverged) as caught:
        judge.judge(made)
    assert ("--split-huge-pages" in caught.value.remedy) is can_split
    assert "--on-timeout" in caught.value.remedy
