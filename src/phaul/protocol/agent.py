"""Which step of the conversation is legal when, and what the agent owes if the channel is lost.

Used in every phase, on both hosts.  Pure.  The agent shows each request before it obeys it, and
each answer before it sends it; the source does the same in its own order.  One table for both, so
that neither can be led out of turn, and the two cannot drift apart.

              Clock, Survey: as often as it wants
                      |
    NEW --Hello--> GREETED --Prepare--> READY --StartRound--> ROUND
                                         ^ |                    |
                                         | |     StopRound      |
                                         +-|--------------------+
                                           |
                            Image, after a round at least
                                           |
                                           v
                                        LOADING --Restore--> HELD --Release--> RUNNING

    Discard, in all from GREETED to HELD, and again in SPENT --> SPENT
    Bye, in all but NEW and HELD --> ENDED     a copy that is held needs a decision first

Where the answer is Failed: Hello ends the conversation; Clock, Survey and Prepare may be asked
again; StartRound, StopRound and Restore leave it SPENT, the next attempt is a conversation of its
own; Release, and the Discard of a held copy, leave it DOUBTFUL: who has the process is settled by
looking, not here.
"""

from enum import Enum
from typing import Final

from phaul.errors import ProtocolError
from phaul.protocol.messages import (
    Alive,
    Answer,
    Bye,
    Clock,
    Discard,
    Done,
    Failed,
    Hello,
    Image,
    Prepare,
    Release,
    Request,
    Restore,
    Restored,
    StartRound,
    StopRound,
    Survey,
    Surveyed,
    Time,
    Welcome,
)

__all__ = ["MAX_IMAGES", "Conversation", "Duty", "State"]

MAX_IMAGES: Final = 65_536
"""A tree of some thousand tasks has ten images for each."""


class State(Enum):
    """Where the conversation stands; drawn above."""

    NEW = "new"
    GREETED = "greeted"
    READY = "ready"
    ROUND = "round"
    LOADING = "loading"
    HELD = "held"
    RUNNING = "running"
    SPENT = "spent"
    DOUBTFUL = "doubtful"
    ENDED = "ended"


class Duty(Enum):
    """What the agent does when the channel is lost, or the source breaks the protocol."""

    CLEAN_UP = "clean-up"
    """The source has the process: leave nothing behind."""
    HOLD = "hold"
    """Only looking at both hosts can tell: keep what the process can be restored from."""
    RUN = "run"
    """The process is this host's: see the release through, keep it."""


_DONE: Final[dict[type[Request], tuple[type[Answer], State]]] = {
    Hello: (Welcome, State.GREETED),
    Clock: (Time, State.GREETED),
    Survey: (Surveyed, State.GREETED),
    Prepare: (Done, State.READY),
    StartRound: (Done, State.ROUND),
    StopRound: (Done, State.READY),
    Restore: (Restored, State.HELD),
    Release: (Done, State.RUNNING),
    Discard: (Done, State.SPENT),
    Bye: (Done, State.ENDED),
}
"""The answer that each request may get beside Failed, and where it leads."""

_FAILED: Final[dict[type[Request], State]] = {
    Hello: State.ENDED,
    Clock: State.GREETED,
    Survey: State.GREETED,
    Prepare: State.GREETED,
    StartRound: State.SPENT,
    StopRound: State.SPENT,
    Restore: State.SPENT,
    Release: State.DOUBTFUL,
    Discard: State.SPENT,
    Bye: State.ENDED,
}

_LEGAL: Final[dict[State, tuple[type[Request], ...]]] = {
    State.NEW: (Hello,),
    State.GREETED: (Clock, Survey, Prepare, Discard, Bye),
    State.READY: (StartRound, Image, Discard, Bye),
    State.ROUND: (StopRound, Discard, Bye),
    State.LOADING: (Image, Restore, Discard, Bye),
    State.HELD: (Release, Discard),
    State.RUNNING: (Bye,),
    State.SPENT: (Discard, Bye),
    State.DOUBTFUL: (Bye,),
    State.ENDED: (),
}


class Conversation:
    """The state of one conversation.

    `state` is where it stands, `rounds` how many were written, `image_left` how many bytes of the
    image under way are still to come.  `asked` is the request that waits for its answer.
    """

    def __init__(self) -> None:
        self.state = State.NEW
        self.rounds = 0
        self.image_left = 0
        self.asked: Request | None = None
        self._images: set[str] = set()
        self._at_end = Duty.CLEAN_UP

    @property
    def duty(self) -> Duty:
        """What the agent owes if the channel is lost now; after the end, what it was before."""
        if self.state is State.ENDED:
            return self._at_end
        if isinstance(self.asked, Release) or self.state is State.RUNNING:
            return Duty.RUN
        if isinstance(self.asked, Discard):
            return Duty.CLEAN_UP
        if self.state in {State.HELD, State.DOUBTFUL}:
            return Duty.HOLD
        return Duty.CLEAN_UP

    def legal(self) -> tuple[type[Request], ...]:
        """The requests that may come next, Alive apart, which always may."""
        if self.asked is not None or self.image_left:
            return ()
        most = len(self._images) >= MAX_IMAGES
        return tuple(
            kind
            for kind in _LEGAL[self.state]
            if not (kind is Image and (most or not self.rounds))
            and not (kind is Restore and not self._images)
        )

    def request(self, request: Request) -> None:
        """The source asks; raises ProtocolError if it may not now, and changes nothing then."""
        if isinstance(request, Alive):
            return
        if type(request) not in self.legal():
            raise ProtocolError(f"{type(request).__name__} out of turn: {self._standing()}")
        if isinstance(request, StartRound) and request.number != self.rounds:
            raise ProtocolError(f"round {request.number} was begun, {self.rounds} is next")
        if isinstance(request, StopRound) and request.number != self.rounds:
            raise ProtocolError(f"round {request.number} was ended, {self.rounds} is under way")
        if isinstance(request, Restore) and request.images != len(self._images):
            raise ProtocolError(f"{request.images} images, but {len(self._images)} were sent")
        if isinstance(request, Image):
            if request.name in self._images:
                raise ProtocolError(f"the image {request.name} was sent twice")
            self._images.add(request.name)
            self.image_left = request.size
            self.state = State.LOADING
        else:
            self.asked = request

    def restore_request(self) -> Restore:
        """The Restore for the images that were sent."""
        return Restore(images=len(self._images))

    def chunk(self, size: int) -> None:
        """A raw frame of `size` bytes passes; raises ProtocolError if no image lacks that many."""
        if not 0 < size <= self.image_left:
            raise ProtocolError(f"{size} bytes of an image that lacks {self.image_left}")
        self.image_left -= size

    def answer(self, answer: Answer) -> None:
        """The agent answers; raises ProtocolError if that is no answer to what was asked."""
        if isinstance(answer, Alive):
            return
        if self.asked is None:
            raise ProtocolError(f"{type(answer).__name__}, but nothing was asked")
        kind = type(self.asked)
        expected, state = _DONE[kind]
        if isinstance(answer, Failed):
            held = self.state is State.HELD
            state = State.DOUBTFUL if held and kind is Discard else _FAILED[kind]
        elif type(answer) is not expected:
            raise ProtocolError(f"{type(answer).__name__} is no answer to {kind.__name__}")
        elif kind is StopRound:
            self.rounds += 1
        if state is State.ENDED:
            self._at_end = self.duty  # a goodbye does not change whose the process is
        self.asked = None
        self.state = state

    def _standing(self) -> str:
        if self.asked is not None:
            return f"{type(self.asked).__name__} is not answered yet"
        if self.image_left:
            return f"an image lacks {self.image_left} bytes"
        return f"the conversation is {self.state.value}"
