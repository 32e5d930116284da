"""The index against a dictionary of single pages."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from phaul.pages.store import Index, Level, Missing, Piece, Where
from phaul.pages.store.index import PAGE

PAGES = 40
Ranges = list[tuple[int, int, Where]]


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """A page map over a small address space: gaps, and neighbours that are not joined."""
    found: Ranges = []
    at = 0
    while at < PAGES:
        at += draw(st.integers(0, 5))
        pages = min(draw(st.integers(1, 8)), PAGES - at)
        if pages > 0:
            found.append((at * PAGE, pages, draw(st.sampled_from(Where))))
        at += pages
    return found


class Naive:
    """Each level a dictionary, page by page."""

    def __init__(self) -> None:
        self.levels: list[dict[int, tuple[int, int] | Where]] = []

    def add(self, file: int, found: Ranges) -> None:
        level: dict[int, tuple[int, int] | Where] = {}
        offset = 0
        for start, pages, where in found:
            for page in range(start // PAGE, start // PAGE + pages):
                level[page] = (file, offset) if where is Where.HERE else where
                offset += PAGE if where is Where.HERE else 0
        self.levels.insert(0, level)

    def find(self, page: int) -> tuple[int, int] | bool:
        """File and offset; or missing, and whether it is known to be elsewhere."""
        for level in self.levels:
            found = level.get(page)
            if found is Where.ELSEWHERE:
                return True
            if found is None:
                return False
            if isinstance(found, tuple):
                return found
        return False


def walk(index: Index, pagemap: int, page: int, pages: int) -> list[tuple[int, int] | bool]:
    """Each page of a range, as answers say it; an answer is never more than what was asked."""
    said: list[tuple[int, int] | bool] = []
    while pages:
        found = index.find(pagemap, page * PAGE, pages)
        assert 0 < found.pages <= pages
        for number in range(found.pages):
            if isinstance(found, Piece):
                said.append((found.file, found.offset + number * PAGE))
            else:
                said.append(found.elsewhere)
        page += found.pages
        pages -= found.pages
    return said


@given(st.lists(ranges(), min_size=1, max_size=5), st.integers(0, PAGES), st.integers(1, PAGES))
def test_the_newest_round_wins(levels: list[Ranges], page: int, pages: int) -> None:
    index, naive = Index(), Naive()
    for file, found in enumerate(levels):
        level = Level(file, found)
        assert level.pages == sum(count for _, count, where in found if where is Where.HERE)
        index.add(7, level)
        naive.add(file, found)
        # Each round can be asked while those after it are not there yet.
        wanted = [naive.find(number) for number in range(page, page + pages)]
        assert walk(index, 7, page, pages) == wanted


def test_processes_are_apart() -> None:
    index = Index()
    index.add(7, Level(0, [(0, 4, Where.HERE)]))
    index.add(8, Level(1, [(PAGE, 1, Where.HERE)]))
    assert index.find(7, PAGE, 2) == Piece(0, PAGE, 2)
    assert index.find(8, PAGE, 2) == Piece(1, 0, 1)
    assert index.find(9, 0, 2) == Missing(2, elsewhere=False)


def test_the_last_page_of_the_address_space() -> None:
    index = Index()
    index.add(7, Level(0, [((1 << 64) - PAGE, 1, Where.HERE)]))
    assert index.find(7, (1 << 64) - PAGE, 1) == Piece(0, 0, 1)


def test_memory_goes_by_ranges_not_by_pages() -> None:
    few = Level(0, [(0, 1 << 40, Where.HERE)])
    arrays = [getattr(few, name) for name in Level.__slots__ if name.startswith("_")]
    assert sum(sys.getsizeof(array) for array in arrays) < 1000
    assert few.find((1 << 40) - 1, 9) == (((1 << 40) - 1) * PAGE, 1)
