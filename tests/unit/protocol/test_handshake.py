import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import VersionMismatch
from phaul.protocol import NEWEST, OLDEST
from phaul.protocol.handshake import OURS, confirm, negotiate
from phaul.protocol.messages import Versions

versions = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(
    lambda pair: Versions(oldest=min(pair), newest=max(pair))
)


@given(versions, versions)
def test_the_newest_that_both_speak(one: Versions, other: Versions) -> None:
    both = set(range(one.oldest, one.newest + 1)) & set(range(other.oldest, other.newest + 1))
    if both:
        assert negotiate(one, other) == negotiate(other, one) == max(both)
        assert confirm(max(both), one) == max(both)
    else:
        with pytest.raises(VersionMismatch) as caught:
            negotiate(one, other)
        assert caught.value.exit_code == 5
        assert str(one.newest) in caught.value.what
        assert "same phaul" in caught.value.remedy


def test_ours() -> None:
    assert Versions(oldest=OLDEST, newest=NEWEST) == OURS
    assert negotiate(OURS) == NEWEST


def test_a_version_that_was_not_offered() -> None:
    with pytest.raises(VersionMismatch, match="version 9"):
        confirm(9, Versions(oldest=1, newest=2))
