"""What is judged of measurements, and how they are spread."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.contenders import CONTENDERS, contender
from bench.peers.demands import DEMANDS, LEAST, Demand, demanded, judge, spread
from bench.peers.results import Line, Results, Sample
from bench.peers.scenarios import PLACES, scenarios, thinned
from tests.unit.bench.made import place_of, taken

RATIOS = [demand for demand in DEMANDS if demand.other is not None]
SHARES = [demand for demand in DEMANDS if demand.other is None]


def results_for(demand: Demand, one: float, other: float, turns: int = LEAST) -> Results:
    """All that a demand needs, with these downtimes, or with `one` as the own share."""
    values = dict(zip(demand.sides, (one, other), strict=False))
    lines: list[list[Line]] = [
        taken(side.scenario, side.contender, *[Sample(gap_s=value, own_s=value)] * turns)
        for side, value in values.items()
    ]
    return Results(when="2026-01-01", places=[place_of(demand.place, *lines)])


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=40))
def test_a_spread_lies_in_its_order(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found.turns == len(values)
    assert found.median == statistics.median(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


@pytest.mark.parametrize("demand", RATIOS)
def test_a_ratio_is_met_up_to_its_limit(demand: Demand) -> None:
    met = judge(demand, results_for(demand, demand.at_most * 0.999, 1.0))
    assert (met.verdict, met.turns) == ("met", LEAST)
    missed = judge(demand, results_for(demand, demand.at_most * 1.001, 1.0))
    assert missed.verdict == "missed"
    assert missed.value == pytest.approx(demand.at_most * 1.001)
    assert str(missed).startswith("missed: ")
    assert "times" in missed.came


@pytest.mark.parametrize("demand", SHARES)
def test_an_own_share_is_judged_in_seconds(demand: Demand) -> None:
    assert judge(demand, results_for(demand, 0.0149, 0)).verdict == "met"
    missed = judge(demand, results_for(demand, 0.0151, 0))
    assert (missed.verdict, missed.came) == ("missed", "15.1 ms")


@pytest.mark.parametrize("demand", DEMANDS)
def test_too_few_turns_are_no_figure(demand: Demand) -> None:
    found = judge(demand, results_for(demand, 0.0, 1.0, LEAST - 1))
    assert (found.verdict, found.value) == ("no figure", None)
    assert f"{LEAST - 1} turns of {LEAST}" in str(found)


@pytest.mark.parametrize("demand", DEMANDS)
def test_another_place_is_no_figure(demand: Demand) -> None:
    other = next(place for place in PLACES if place != demand.place)
    assert judge(demand, Results(when="", places=[place_of(other)])).verdict == "no figure"


def test_a_move_that_lost_something_does_not_count() -> None:
    demand = RATIOS[0]
    assert demand.other is not None
    failed = Sample(gap_s=0.0, error="the victim is not whole")
    fine = [Sample(gap_s=1.0)] * LEAST
    lines = [
        taken(demand.one.scenario, demand.one.contender, failed, *fine),
        taken(demand.other.scenario, demand.other.contender, *fine),
    ]
    found = judge(demand, Results(when="", places=[place_of(demand.place, *lines)]))
    assert (found.value, found.turns) == (1.0, LEAST)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_judged_is_measured(place: str) -> None:
    name = next(one for one in PLACES if one == place)
    run = {scenario.same: scenario for scenario in scenarios(name)}
    for demand in DEMANDS:
        for side in demand.sides if demand.place == name else ():
            assert side.contender in run[side.scenario.same].contenders
            assert side.contender in side.scenario.contenders
    measured = [(s.same, one) for s in demanded(DEMANDS, name) for one in s.contenders]
    sides = [side for demand in DEMANDS if demand.place == name for side in demand.sides]
    assert len(set(measured)) == len(measured)
    assert set(measured) == {(side.scenario.same, side.contender) for side in sides}


def test_scenarios_are_told_apart() -> None:
    for place in PLACES:
        for wanted in (scenarios(place), thinned(scenarios(place))):
            assert len({str(scenario) for scenario in wanted}) == len(wanted)
            assert len({scenario.same for scenario in wanted}) == len(wanted)


def test_a_contender_is_left_out_for_what_it_lacks() -> None:
    original, by_hand = contender("original"), contender("by hand")
    assert original is not None
    assert by_hand is not None
    assert original.lacks(()) == "--max-rounds"
    assert original.lacks([word for word in original.words or () if word[0] == "-"]) is None
    assert by_hand.lacks(()) is None
    assert contender("nobody") is None
    assert len({one.mark for one in CONTENDERS}) == len(CONTENDERS)
