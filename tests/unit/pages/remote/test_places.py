"""The numbers of the pages, against a list of them."""

from hypothesis import given
from hypothesis import strategies as st

from phaul.pages.remote.places import Places
from phaul.pages.store.index import PAGE


@st.composite
def ranges(draw: st.DrawFn) -> dict[int, list[tuple[int, int]]]:
    """A few page maps, each with ranges in order and apart, some of them touching."""
    found = {}
    for pagemap in draw(st.sets(st.integers(1, 9), max_size=3)):
        at, row = 0, []
        for gap, pages in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)))):
            at += gap * PAGE
            row.append((at, pages))
            at += pages * PAGE
        found[pagemap] = row
    return found


@given(ranges(), st.integers(1, 9), st.integers(0, 40))
def test_against_a_list(told: dict[int, list[tuple[int, int]]], pagemap: int, number: int) -> None:
    places = Places(told)
    pages = [
        (of, start + at * PAGE, count - at)
        for of in sorted(told)
        for start, count in told[of]
        for at in range(count)
    ]
    assert places.total == len(pages)
    assert [places.where(at) for at in range(len(pages))] == pages
    by_address = {(of, address): (at, left) for at, (of, address, left) in enumerate(pages)}
    assert places.number(pagemap, number * PAGE) == by_address.get((pagemap, number * PAGE))
