"""What really changed of a huge page that is marked as a whole."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.subjects.changed import Sample, changed_pages
from phaul.subjects.huge import HUGE_PAGE
from tests.unit.subjects.fake_huge import FakeHuge

PAGE = 4096


@given(st.sets(st.integers(0, 15)), st.integers(0, PAGE - 1))
def test_the_pages_that_differ_are_counted(pages: set[int], offset: int) -> None:
    before = random.Random(0).randbytes(16 * PAGE)
    after = bytearray(before)
    for page in pages:
        after[page * PAGE + offset] ^= 1
    assert changed_pages(before, bytes(after)) == len(pages)


@pytest.fixture
def host(tmp_path: Path) -> FakeHuge:
    made = FakeHuge(tmp_path)
    made.process(10, (HUGE_PAGE, 4 * HUGE_PAGE, 3 * HUGE_PAGE))
    for at in (1, 2, 3):
        made.content(10, at * HUGE_PAGE, b"")
    return made


def test_how_many_times_as_much_is_marked(host: FakeHuge) -> None:
    sample = Sample([(10, HUGE_PAGE), (10, 2 * HUGE_PAGE)], host.fake.proc)
    assert sample.look() is None, "the first time"
    assert sample.look() is None, "nothing changed"
    host.content(10, HUGE_PAGE, b"x")
    assert sample.look() == 512
    host.content(10, HUGE_PAGE, b"x" * 3 * PAGE)
    host.content(10, 2 * HUGE_PAGE, b"y")
    # Two more pages and a part of one here, and one there.
    assert sample.look() == 1024 / 4
    host.content(10, 2 * HUGE_PAGE, b"z" * HUGE_PAGE)
    assert sample.look() == 1


def test_what_is_gone_does_not_count(host: FakeHuge) -> None:
    sample = Sample([(10, HUGE_PAGE), (10, 9 * HUGE_PAGE), (11, HUGE_PAGE)], host.fake.proc)
    sample.look()
    host.content(10, HUGE_PAGE, b"x")
    assert sample.look() == 512
    (host.fake.root / "10" / "mem").unlink()
    assert sample.look() is None
