"""The stretches that were given, against a set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from phaul.pages.store.served import Stretches

spans = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda of: (of[0], of[0] + of[1]))


@given(st.lists(spans, max_size=12), spans)
def test_against_a_set(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    stretches, naive = Stretches(), set[int]()
    for start, end in added:
        stretches.add(start, end)
        naive.update(range(start, end))
    assert stretches.lacking(*asked) == len(set(range(*asked)) - naive)
    assert stretches.lacking(0, 80) == 80 - len(naive)


def test_neighbours_are_joined() -> None:
    stretches = Stretches()
    for start in (0, 20, 10):
        stretches.add(start, start + 10)
    assert len(stretches) == 1
