import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.policy import NO_TRACKING, StopReason, StopRule

PAGES = st.lists(st.integers(0, 10_000), min_size=1, max_size=12)
RULES = st.builds(StopRule, st.integers(0, 500), st.integers(1, 500), st.integers(1, 10))


def reason_of(rule: StopRule, pages: list[int]) -> StopReason | None:
    verdict = rule.decide(pages)
    return verdict.reason if verdict else None


@given(RULES, st.integers(0, 10_000))
def test_the_first_round_is_never_growth(rule: StopRule, pages: int) -> None:
    assert reason_of(rule, [pages]) is not StopReason.GROWTH


@given(RULES, PAGES)
def test_the_most_rounds_end_it(rule: StopRule, pages: list[int]) -> None:
    if len(pages) >= rule.max_rounds:
        assert rule.decide(pages) is not None


@given(RULES, PAGES)
def test_it_is_the_rule_of_its_description(rule: StopRule, pages: list[int]) -> None:
    small = pages[-1] < rule.min_pages
    growth = len(pages) > 1 and pages[-1] - pages[-2] >= rule.max_growth_pages
    most = len(pages) >= rule.max_rounds
    expected = {
        StopReason.SMALL: small,
        StopReason.GROWTH: growth,
        StopReason.MOST_ROUNDS: most,
    }
    reason = reason_of(rule, pages)
    assert (reason is not None) == any(expected.values())
    assert reason is None or expected[reason]


@given(RULES, PAGES)
def test_a_laxer_rule_never_goes_on_where_a_stricter_stops(
    rule: StopRule, pages: list[int]
) -> None:
    eager = StopRule(
        rule.min_pages + 1, max(1, rule.max_growth_pages - 1), max(1, rule.max_rounds - 1)
    )
    if rule.decide(pages) is not None:
        assert eager.decide(pages) is not None


def test_no_round_no_reason() -> None:
    assert StopRule().decide([]) is None


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([1000, 63], StopReason.SMALL),
        ([1000, 64], None),
        ([1000, 1031], None),
        ([1000, 1032], StopReason.GROWTH),
        ([1000] * 7, None),
        ([1000] * 8, StopReason.MOST_ROUNDS),
        ([0], StopReason.SMALL),
    ],
)
def test_the_defaults(pages: list[int], reason: StopReason | None) -> None:
    assert reason_of(StopRule(), pages) is reason


@given(RULES, PAGES)
def test_the_explanation_has_the_figures(rule: StopRule, pages: list[int]) -> None:
    verdict = rule.decide(pages)
    if verdict is None:
        return
    figures = {
        StopReason.SMALL: [pages[-1]],
        StopReason.GROWTH: pages[-2:],
        StopReason.MOST_ROUNDS: [len(pages)],
    }[verdict.reason]
    assert all(str(figure) in verdict.explanation for figure in figures)


def test_no_tracking_is_explained() -> None:
    assert "does not track" in NO_TRACKING.explanation


@pytest.mark.parametrize("wrong", [{"min_pages": -1}, {"max_growth_pages": 0}, {"max_rounds": 0}])
def test_thresholds_that_cannot_be_meant(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        StopRule(**wrong)
