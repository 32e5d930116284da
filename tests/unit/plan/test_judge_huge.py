"""What is said of huge pages, by what was found of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import SubjectError
from phaul.facts import Memory
from phaul.plan.judges.huge import HugeFacts, judge_huge, many
from phaul.protocol.preflight import Level

MANY = Memory(private=100 << 20, transparent_huge=64 << 20)
OBSTACLE = SubjectError("debugfs is not mounted", remedy="mount it")


@given(
    st.builds(
        HugeFacts,
        memory=st.builds(
            Memory,
            private=st.integers(0, 1 << 40),
            transparent_huge=st.integers(0, 1 << 40),
        ),
        tracked=st.booleans(),
        wished=st.booleans(),
        obstacle=st.sampled_from([None, OBSTACLE]),
        times=st.none() | st.floats(1, 512),
    )
)
def test_it_is_offered_where_it_helps_and_can_be(facts: HugeFacts) -> None:
    found = judge_huge(facts)
    assert [f.check for f in found] == ["thp", "split-huge-pages"][: 1 + facts.wished]
    thp, *split = found
    harm = facts.tracked and many(facts.memory)
    offered = "--split-huge-pages" in thp.what + thp.remedy
    assert offered == (harm and facts.obstacle is None and not facts.wished)
    refused = facts.tracked and facts.wished and facts.obstacle is not None
    assert [f.level for f in split] == [Level.NO if refused else Level.OK] * facts.wished
    assert all(f.remedy == "mount it" for f in split if f.level is Level.NO)


@pytest.mark.parametrize(
    ("huge", "private", "said"),
    [(64, 100, True), (64, 300, False), (16, 20, False), (0, 0, False)],
)
def test_how_many_are_many(huge: int, private: int, said: bool) -> None:
    memory = Memory(private=private << 20, transparent_huge=huge << 20)
    assert many(memory) is said


def test_it_says_how_many_times_as_much_is_sent() -> None:
    (seen,) = judge_huge(HugeFacts(MANY, tracked=True, wished=False, times=129.6))
    assert seen.level is Level.WARNING
    assert "64.0 MiB of 100.0 MiB in transparent huge pages" in seen.what
    assert seen.what.endswith("now about 130 times what is written to them")
    (unseen,) = judge_huge(HugeFacts(MANY, tracked=True, wished=False))
    assert unseen.what.endswith("one byte written is 2 MiB to be sent again")


def test_without_rounds_they_do_no_harm() -> None:
    found = judge_huge(HugeFacts(MANY, tracked=False, wished=True))
    assert [f.level for f in found] == [Level.OK, Level.OK]
    assert "without rounds they do no harm" in found[0].what
    assert "there are no rounds" in found[1].what
