"""A sample of the faults, always the same; and that what the harness knows of the steps is true."""

from collections import Counter
from itertools import islice

import pytest

from tests.faults.generate import WEIGHTS, cases
from tests.faults.plan import FaultPoint, Kind
from tests.faults.runner import Summary, run
from tests.faults.steps import TIMELINE, UNSETTLED

SEED = 2017
SAMPLE = 64


@pytest.fixture(scope="module")
def summary() -> Summary:
    """The sample, done once."""
    return run(cases(SEED), SAMPLE, lanes=4)


@pytest.mark.timeout(600)
def test_each_fault_of_the_sample_leaves_one_whole_process(summary: Summary) -> None:
    assert summary.broken == []
    found = {result["case"]: result["found"] for result in summary.failed}
    assert found == {}
    assert summary.fired >= SAMPLE


def test_the_steps_are_those_that_the_faults_are_made_for(summary: Summary) -> None:
    """Else faults at steps that are no more would silently not happen."""
    (clean,) = [result for result in summary.results if result["case"].startswith("none")]
    assert set(TIMELINE) - set(clean["steps"]) == set()


def test_a_text_is_a_fault_and_a_fault_a_text() -> None:
    for fault in islice(cases(SEED), 2000):
        assert FaultPoint.parse(str(fault)) == fault


def test_a_seed_gives_the_same_faults_and_none_twice() -> None:
    first, again = ([*islice(cases(7), 3000)] for _ in range(2))
    assert first == again
    assert len(set(map(str, first))) == len(first)
    assert first != [*islice(cases(8), 3000)]


def test_every_kind_is_among_a_thousand_and_every_step_among_the_kills() -> None:
    counts = Counter(fault.kind for fault in islice(cases(1), 1000))
    assert set(counts) == {*WEIGHTS, Kind.NONE, Kind.MISSING}
    kills = {fault.at for fault in islice(cases(1), 20_000) if fault.kind is Kind.KILL}
    assert kills == set(TIMELINE) - set()
    assert set(UNSETTLED) <= kills
