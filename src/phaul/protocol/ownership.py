"""Who owns the process: the steps of the cutover on both ends, and which may follow which.

Used from the cutover to the end, on both hosts, by the two ends and by `phaul resolve`.  Pure.
Each end writes its state into its journal; what must be on the disk before the next step is said
beside it.

    SOURCE                                            DESTINATION
    RUNNING   nothing has begun                       RECEIVING  gives up by itself
       | freeze                                          | restore
    FREEZING  CRIU alone holds it                     RESTORING  gives up by itself
       | lock: on the disk before Restore is sent        | ready: on the disk before Ready is said
    LOCKED    the frozen cgroup holds it too          READY      the copy stands still; from here
       | decide, after Ready                             |       only the source's word ends it
    DECIDED   CRIU may kill it                           | commit
       | gone: looked at, no task is left             RELEASING  it may run
    GONE      Commit may be sent                         | runs
       | there, after Running                         RUNNING    it runs here
    THERE     it runs on the destination

    back --> BACK: Commit is never sent.  From RUNNING, FREEZING and LOCKED, and from DECIDED if all
    of the tree was found alive.  On the disk before the tree is let go.

    lapse --> IMAGES: the copy has ended and never ran, what it was restored from is kept.  From
    READY, AGAIN, and RELEASING if CRIU failed.  Then: restore --> AGAIN, ready --> READY.

    discard --> DISCARDED, from all but RELEASING and RUNNING.

The journal may say LOCKED from the moment at which CRIU has stopped all of the tree, while the dump
goes on: what undoes it does so too if the lock was not taken.

LOCKED without a second lock, where the source has no cgroup v2, is as good while phaul and CRIU
live; then DECIDED has to be on the disk before the kill, since after a power cut nothing else tells
a tree that was killed from one that CRIU let go.
"""

from enum import Enum
from typing import Final, TypeVar

from phaul.errors import ProtocolError

S = TypeVar("S", bound=Enum)

__all__ = ["DestinationOwner", "DestinationState", "SourceOwner", "SourceState"]


class SourceState(Enum):
    """Where the source stands; drawn above."""

    RUNNING = "running"
    FREEZING = "freezing"
    LOCKED = "locked"
    DECIDED = "decided"
    GONE = "gone"
    THERE = "there"
    BACK = "back"


class DestinationState(Enum):
    """Where the destination stands; drawn above."""

    RECEIVING = "receiving"
    RESTORING = "restoring"
    READY = "ready"
    RELEASING = "releasing"
    RUNNING = "running"
    IMAGES = "images"
    AGAIN = "again"
    DISCARDED = "discarded"

    @property
    def gives_up(self) -> bool:
        """Whether the destination may end this by itself: the source cannot have decided yet."""
        return self in (DestinationState.RECEIVING, DestinationState.RESTORING)

    @property
    def owed(self) -> bool:
        """Whether the process may have to go on from here: then nothing of it may be removed."""
        return self in _OWED


_OWED: Final = {
    DestinationState.READY,
    DestinationState.RELEASING,
    DestinationState.IMAGES,
    DestinationState.AGAIN,
}

_S: Final = SourceState
_D: Final = DestinationState

_SOURCE: Final[dict[str, dict[SourceState, SourceState]]] = {
    "freeze": {_S.RUNNING: _S.FREEZING},
    "lock": {_S.FREEZING: _S.LOCKED},
    "decide": {_S.LOCKED: _S.DECIDED},
    "gone": {_S.DECIDED: _S.GONE},
    "there": {_S.GONE: _S.THERE},
    "back": {_S.RUNNING: _S.BACK, _S.FREEZING: _S.BACK, _S.LOCKED: _S.BACK},
}

_DESTINATION: Final[dict[str, dict[DestinationState, DestinationState]]] = {
    "restore": {_D.RECEIVING: _D.RESTORING, _D.IMAGES: _D.AGAIN},
    "ready": {_D.RESTORING: _D.READY, _D.AGAIN: _D.READY},
    "commit": {_D.READY: _D.RELEASING},
    "runs": {_D.RELEASING: _D.RUNNING},
    "lapse": {_D.READY: _D.IMAGES, _D.RELEASING: _D.IMAGES, _D.AGAIN: _D.IMAGES},
    "discard": dict.fromkeys(
        (_D.RECEIVING, _D.RESTORING, _D.READY, _D.IMAGES, _D.AGAIN), _D.DISCARDED
    ),
}


class SourceOwner:
    """The source's end; a step out of order raises ProtocolError and changes nothing."""

    def __init__(self, state: SourceState = SourceState.RUNNING) -> None:
        self.state = state

    @property
    def may_commit(self) -> bool:
        """Whether Commit may be sent: only after the last task is gone."""
        return self.state is SourceState.GONE

    @property
    def decided(self) -> bool:
        """Whether the tree may have been killed here."""
        return self.state in (SourceState.DECIDED, SourceState.GONE, SourceState.THERE)

    def freeze(self) -> None:
        """CRIU is asked for the final dump."""
        self._step("freeze")

    def lock(self) -> None:
        """The tree is held for good; Restore may be sent."""
        self._step("lock")

    def decide(self) -> None:
        """Ready has come, and the tree may be killed."""
        self._step("decide")

    def gone(self) -> None:
        """No task of the tree is left."""
        self._step("gone")

    def there(self) -> None:
        """The destination says that it runs there."""
        self._step("there")

    def back(self, *, whole: bool = False) -> None:
        """The tree is going to run on here; `whole`: looked at, none of it was killed."""
        if whole and self.state is SourceState.DECIDED:
            self.state = SourceState.BACK
        else:
            self._step("back")

    def _step(self, step: str) -> None:
        self.state = _after(_SOURCE, step, self.state, "source")


class DestinationOwner:
    """The destination's end; a step out of order raises ProtocolError and changes nothing."""

    def __init__(self, state: DestinationState = DestinationState.RECEIVING) -> None:
        self.state = state

    def restore(self) -> None:
        """CRIU is asked to restore, for the first time or from images that were kept."""
        self._step("restore")

    def ready(self) -> None:
        """The copy stands restored and still."""
        self._step("ready")

    def commit(self) -> None:
        """The source's tree is gone: the copy is going to be let go."""
        self._step("commit")

    def runs(self) -> None:
        """CRIU says that it runs."""
        self._step("runs")

    def lapse(self) -> None:
        """The copy has ended, and never ran; what it was restored from is kept."""
        self._step("lapse")

    def discard(self) -> None:
        """The source has the process: nothing is kept."""
        self._step("discard")

    def give_up(self) -> None:
        """End it without the source's word."""
        if not self.state.gives_up:
            raise ProtocolError(f"a copy that is {self.state.value} is not given up by itself")
        self.discard()

    def _step(self, step: str) -> None:
        self.state = _after(_DESTINATION, step, self.state, "destination")


def _after(steps: dict[str, dict[S, S]], step: str, state: S, host: str) -> S:
    after = steps[step].get(state)
    if after is None:
        raise ProtocolError(f"the step {step!r} does not follow {state.value!r}", host=host)
    return after
