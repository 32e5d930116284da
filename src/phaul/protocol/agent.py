"""Which step of the conversation is legal when.

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
             Follow, or an Image after a round at least
                                           |
                                           v
                                        LOADING --Restore--> HELD --Commit--> RUNNING

    Drain and Abandon, in RUNNING, as often as it wants
    Discard, in all from GREETED to HELD, and again in SPENT --> SPENT
    Bye, in all but NEW and HELD --> ENDED     a copy that is held needs a decision first

    GREETED --Ask--> SETTLING: Ask, Commit, Discard, Recover, Attach, Drain, as often as it wants
    SETTLING --Bye--> ENDED

Where the answer is Failed: Hello ends the conversation; Clock, Survey, Prepare, Drain and Ask may
be asked again; StartRound, StopRound, Follow and Restore leave it SPENT, the next attempt is a
conversation of its own; Commit, and the Discard of a held copy, leave it DOUBTFUL: who has the
process is settled by looking, in another conversation.
"""

from enum import Enum
from typing import Final

from phaul.errors import ProtocolError
from phaul.protocol.messages import (
    Abandon,
    Alive,
    Answer,
    Ask,
    Attach,
    Bye,
    Clock,
    Commit,
    Discard,
    Done,
    Drain,
    Draining,
    Failed,
    Follow,
    Hello,
    Image,
    Prepare,
    Ready,
    Recover,
    Request,
    Restore,
    Running,
    Standing,
    StartRound,
    StopRound,
    Survey,
    Surveyed,
    Time,
    Welcome,
)

__all__ = ["MAX_IMAGES", "Conversation", "State"]

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
    SETTLING = "settling"
    DOUBTFUL = "doubtful"
    ENDED = "ended"


_DONE: Final[dict[type[Request], tuple[type[Answer], State]]] = {
    Hello: (Welcome, State.GREETED),
    Clock: (Time, State.GREETED),
    Survey: (Surveyed, State.GREETED),
    Prepare: (Done, State.READY),
    StartRound: (Done, State.ROUND),
    StopRound: (Done, State.READY),
    Follow: (Done, State.LOADING),
    Restore: (Ready, State.HELD),
    Commit: (Running, State.RUNNING),
    Drain: (Draining, State.RUNNING),
    Discard: (Done, State.SPENT),
    Ask: (Standing, State.SETTLING),
    Recover: (Ready, State.SETTLING),
    Attach: (Done, State.SETTLING),
    Abandon: (Done, State.RUNNING),
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
    Follow: State.SPENT,
    Restore: State.SPENT,
    Commit: State.DOUBTFUL,
    Drain: State.RUNNING,
    Discard: State.SPENT,
    Ask: State.GREETED,
    Recover: State.SETTLING,
    Attach: State.SETTLING,
    Abandon: State.RUNNING,
    Bye: State.ENDED,
}

_LEGAL: Final[dict[State, tuple[type[Request], ...]]] = {
    State.NEW: (Hello,),
    State.GREETED: (Clock, Survey, Prepare, Discard, Ask, Bye),
    State.READY: (StartRound, Follow, Image, Discard, Bye),
    State.ROUND: (StopRound, Discard, Bye),
    State.LOADING: (Image, Restore, Discard, Bye),
    State.HELD: (Commit, Discard),
    State.RUNNING: (Drain, Abandon, Bye),
    State.SPENT: (Discard, Bye),
    State.SETTLING: (Ask, Commit, Discard, Recover, Attach, Drain, Bye),
    State.DOUBTFUL: (Bye,),
    State.ENDED: (),
}


class Conversation:
    """The state of one conversation.

    `state` is where it stands, `rounds` how many were written, `image_left` how many bytes of the
    image under way are still to come.  `asked` is the request that waits for its answer.
    """

    def __init__(self, state: State = State.NEW) -> None:
        self.state = state
        self.rounds = 0
        self.image_left = 0
        self.asked: Request | None = None
        self._images: set[str] = set()

    def legal(self) -> tuple[type[Request], ...]:
        """The requests that may come next, Alive apart, which always may."""
        if self.asked is not None or self.image_left:
            return ()
        most = len(self._images) >= MAX_IMAGES
        return tuple(
            kind
            for kind in _LEGAL[self.state]
            if not (kind is Image and (most or not (self.rounds or self.state is State.LOADING)))
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
        if self.state is State.SETTLING and kind is not Bye:
            state = State.SETTLING
        self.asked = None
        self.state = state

    def _standing(self) -> str:
        if self.asked is not None:
            return f"{type(self.asked).__name__} is not answered yet"
        if self.image_left:
            return f"an image lacks {self.image_left} bytes"
        return f"the conversation is {self.state.value}"
