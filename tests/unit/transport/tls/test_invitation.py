"""The token: whatever is not the whole of one is refused, and never quoted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import UsageError
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.target import Address

ADDRESSES = st.builds(
    Address,
    st.sampled_from(["127.0.0.1", "host2", "a.very-long.name.example.org", "::1", "fe80::1%eth0"]),
    st.integers(1, 65535),
)
TOKENS = st.builds(
    Invitation, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), ADDRESSES
)
ONE = Invitation(bytes(range(16)), bytes(range(16, 32)), Address("10.77.0.2", 7433))


@settings(deadline=None)
@given(TOKENS)
def test_there_and_back(invitation: Invitation) -> None:
    text = str(invitation)
    assert Invitation.parse(text) == invitation
    assert Invitation.parse(text.lower().replace("-", " ") + "\n") == invitation
    assert all(len(group) == 5 for group in text.split("-")[:-1])


@settings(deadline=None)
@given(TOKENS, st.data())
def test_a_mistake_in_copying_is_seen(invitation: Invitation, data: st.DataObject) -> None:
    letters = str(invitation).replace("-", "")
    at = data.draw(st.integers(0, len(letters) - 2))
    other = data.draw(
        st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(letters[at].__ne__)
    )
    with pytest.raises(UsageError) as caught:
        Invitation.parse(letters[:at] + other + letters[at + 1 :])
    assert letters[:20] not in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=600))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Invitation.parse(text)


def test_a_part_of_one() -> None:
    for length in range(len(str(ONE)) - 1):
        with pytest.raises(UsageError):
            Invitation.parse(str(ONE)[:length])
