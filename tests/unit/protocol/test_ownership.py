"""The steps of both ends: all that is drawn is legal, and nothing else is."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.errors import ProtocolError
from phaul.protocol.ownership import (
    DestinationOwner,
    DestinationState,
    SourceOwner,
    SourceState,
)

S: Final = SourceState
D: Final = DestinationState

SOURCE: Final[dict[str, Callable[[SourceOwner], None]]] = {
    "freeze": SourceOwner.freeze,
    "lock": SourceOwner.lock,
    "decide": SourceOwner.decide,
    "gone": SourceOwner.gone,
    "there": SourceOwner.there,
    "back": SourceOwner.back,
    "back whole": lambda owner: owner.back(whole=True),
}
DRAWN_SOURCE: Final = {
    (S.RUNNING, "freeze"): S.FREEZING,
    (S.FREEZING, "lock"): S.LOCKED,
    (S.LOCKED, "decide"): S.DECIDED,
    (S.DECIDED, "gone"): S.GONE,
    (S.GONE, "there"): S.THERE,
    (S.DECIDED, "back whole"): S.BACK,
    **{(s, b): S.BACK for s in (S.RUNNING, S.FREEZING, S.LOCKED) for b in ("back", "back whole")},
}

DESTINATION: Final[dict[str, Callable[[DestinationOwner], None]]] = {
    "restore": DestinationOwner.restore,
    "ready": DestinationOwner.ready,
    "commit": DestinationOwner.commit,
    "runs": DestinationOwner.runs,
    "lapse": DestinationOwner.lapse,
    "discard": DestinationOwner.discard,
    "give up": DestinationOwner.give_up,
}
DRAWN_DESTINATION: Final = {
    (D.RECEIVING, "restore"): D.RESTORING,
    (D.RESTORING, "ready"): D.READY,
    (D.READY, "commit"): D.RELEASING,
    (D.RELEASING, "runs"): D.RUNNING,
    (D.IMAGES, "restore"): D.AGAIN,
    (D.AGAIN, "ready"): D.READY,
    **{(s, "lapse"): D.IMAGES for s in (D.READY, D.AGAIN, D.RELEASING)},
    **{(s, "discard"): D.DISCARDED for s in (D.RECEIVING, D.RESTORING, D.READY, D.IMAGES, D.AGAIN)},
    **{(s, "give up"): D.DISCARDED for s in (D.RECEIVING, D.RESTORING)},
}


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("step", SOURCE)
def test_each_step_of_the_source(state: SourceState, step: str) -> None:
    follow_source(SourceOwner(state), step)


@pytest.mark.parametrize("state", D)
@pytest.mark.parametrize("step", DESTINATION)
def test_each_step_of_the_destination(state: DestinationState, step: str) -> None:
    follow_destination(DestinationOwner(state), step)


@given(st.lists(st.sampled_from(sorted(SOURCE)), max_size=20))
def test_any_steps_of_the_source_follow_the_drawing(steps: list[str]) -> None:
    owner = SourceOwner()
    could_commit = False
    for step in steps:
        follow_source(owner, step)
        could_commit = could_commit or owner.may_commit
        assert not (could_commit and owner.state is S.BACK)


@given(st.lists(st.sampled_from(sorted(DESTINATION)), max_size=20))
def test_any_steps_of_the_destination_follow_the_drawing(steps: list[str]) -> None:
    owner = DestinationOwner()
    let_go = False
    for step in steps:
        follow_destination(owner, step)
        let_go = let_go or owner.state is D.RUNNING
        assert not let_go or owner.state is D.RUNNING


def follow_source(owner: SourceOwner, step: str) -> None:
    before = owner.state
    after = DRAWN_SOURCE.get((before, step))
    if after is None:
        with pytest.raises(ProtocolError):
            SOURCE[step](owner)
    else:
        SOURCE[step](owner)
    assert owner.state is (after or before)
    assert owner.may_commit is (owner.state is S.GONE)
    assert owner.decided is (owner.state in (S.DECIDED, S.GONE, S.THERE))


def follow_destination(owner: DestinationOwner, step: str) -> None:
    before = owner.state
    after = DRAWN_DESTINATION.get((before, step))
    if after is None:
        with pytest.raises(ProtocolError):
            DESTINATION[step](owner)
    else:
        DESTINATION[step](owner)
    assert owner.state is (after or before)
    assert owner.state.gives_up is (owner.state in (D.RECEIVING, D.RESTORING))
    assert owner.state.owed is (owner.state in (D.READY, D.RELEASING, D.IMAGES, D.AGAIN))
