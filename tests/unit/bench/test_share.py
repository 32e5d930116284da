"""phaul's own share of a gap, by what else was at work in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.share import BEGINNING, CRIU, WIRE, own_share, within
from bench.stopwatch import Span

DUMP, KILL = sorted(CRIU)[:2]
IMAGE = next(iter(WIRE))
MOMENTS = st.integers(-50, 150)
SPANS = st.lists(
    st.tuples(st.sampled_from([DUMP, KILL, IMAGE, "phaul's"]), MOMENTS, MOMENTS).map(
        lambda span: (span[0], float(min(span[1:])), float(max(span[1:])))
    )
)


def test_without_anybody_it_is_all_phauls() -> None:
    assert own_share((10, 20), []) == {BEGINNING: 10}
    assert own_share((10, 20), [("phaul's", 12, 15)]) == {BEGINNING: 10}
    assert own_share((10, 20), [(DUMP, 5, 25)]) == {}


def test_what_lies_beside_or_upon_another_counts_once() -> None:
    spans = [(DUMP, 0.0, 12.0), (KILL, 11.0, 13.0), (IMAGE, 12.5, 12.75), (KILL, 19.0, 40.0)]
    assert own_share((10, 20), spans) == {KILL: pytest.approx(6)}
    early = [(DUMP, 11.0, 12.0), (IMAGE, 14.0, 15.0)]
    assert own_share((10, 20), early) == {BEGINNING: 1, DUMP: 2, IMAGE: 5}


@given(SPANS)
def test_as_counted_moment_by_moment(spans: list[Span]) -> None:
    covered = {
        at
        for name, begun, ended in spans
        if name in CRIU | WIRE
        for at in range(int(begun), int(ended))
    }
    found = own_share((0, 100), spans)
    assert sum(found.values()) == 100 - len(covered & set(range(100)))
    assert all(seconds > 0 for seconds in found.values())


@given(SPANS)
def test_steps_are_cut_to_the_gap(spans: list[Span]) -> None:
    for name, seconds in within((0, 100), spans).items():
        assert 0 < seconds <= 100 * len([s for s in spans if s[0] == name])
