"""What an agent and the keeper of its memory say to each other, and how: JSON, typed, bounded.

Used on the destination, between two processes of one host, over a pair of sockets that keep packets
apart; from Prepare until the agent ends.  Pure.

    agent                                        keeper
    -----                                        ------
                                            <--  Here(pid), once, when it can be asked
    Add(folder)                             -->  a round, or the final dump's memory, is in
                                            <--  Done
    Attach, with a socket                   -->  where the source keeps what it left out
                                            <--  Done
    Finish(folder, least, most)             -->  its images are there too
                                            <--  Counted(pages, started): with CRIU's daemon
                                                 standing the restore may begin
    Guard(pid)                              -->  the restore is held
                                            <--  Done
    Look(release)                           -->  if all is well, it is let go now
    Look(wait)                              -->  what has become of it?
                                            <--  Standing(stage, given)
    Leave(told)                             -->  the process runs: what is left here is yours
                                            <--  Done
    GiveUp                                  -->  or: it was not let go after all
                                            <--  Done

Any answer but Here may be Failed instead.  A folder is a name below the images' directory, which
the keeper was started with, and never a path.

In a post-copy the keeper listens in the migration's directory as well, from Guard on: there the
agent of a later connection may Attach, Look, Leave, and Abandon.
"""

from enum import Enum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from phaul.errors import ProtocolError
from phaul.protocol import codec
from phaul.protocol.messages import Done, Failed
from phaul.protocol.types import Message, Pages, Pid

__all__ = [
    "MAX_PACKET",
    "Abandon",
    "Add",
    "Attach",
    "Counted",
    "Finish",
    "GiveUp",
    "Guard",
    "Here",
    "KeeperAnswer",
    "KeeperRequest",
    "Leave",
    "Look",
    "Stage",
    "Standing",
    "decode_answer",
    "decode_request",
    "encode",
]

MAX_PACKET: Final = 64 << 10
"""The largest packet; the largest there is, a Failed with a log, takes little more than half."""

Folder = Annotated[str, Meta(pattern=r"^[0-9]{1,6}\Z")]

T = TypeVar("T")


class Stage(Enum):
    """How far the lazily restored memory has come."""

    BEFORE = "before"
    """No tree is guarded yet."""
    DRAINING = "draining"
    DRAINED = "drained"
    """All of it is in, or given up by the tree itself."""
    FAILED = "failed"
    """It will never be: the tree was ended, or never ran."""


class Here(Message, frozen=True, kw_only=True, tag="here"):
    """The keeper's first word: its own PID, in the namespace that both are in."""

    pid: Pid


class Add(Message, frozen=True, kw_only=True, tag="add"):
    """A round is in: index what was written.  In the order of the rounds."""

    folder: Folder


class Attach(Message, frozen=True, kw_only=True, tag="attach"):
    """The socket that comes with it is a link to what was left on the source; another one ends."""


class Finish(Message, frozen=True, kw_only=True, tag="finish"):
    """The final dump is in its folder, as far as it is needed: tell its page maps anew.

    If `least` to `most` pages are left to CRIU's daemon, have that stand for a restore with this
    folder as its work directory.  `wide` is `Version.wide_page_server` of the CRIU that the keeper
    was started with.  Memory that follows is waited for without a link for `patience_s`.
    """

    folder: Folder
    least: Pages
    most: Pages
    wide: bool
    patience_s: Annotated[int, Meta(ge=1, le=604_800)] = 600


class Guard(Message, frozen=True, kw_only=True, tag="guard"):
    """The tree below `pid` is restored and held; from now on the keeper outlives the agent."""

    pid: Pid


class Look(Message, frozen=True, kw_only=True, tag="look"):
    """How does it stand?  Answered when the stage is a last one, or after `wait_ms`.

    With `release` the copy is let go if it is well: from then on, what ends it is a person's loss.
    """

    wait_ms: Annotated[int, Meta(ge=0, le=10_000)] = 0
    release: bool = False


class Abandon(Message, frozen=True, kw_only=True, tag="abandon"):
    """The source, which has lost the memory, knows it: end the copy, and leave nothing."""


class GiveUp(Message, frozen=True, kw_only=True, tag="give-up"):
    """The copy was ended, and counts as one that never ran."""


class Leave(Message, frozen=True, kw_only=True, tag="leave"):
    """The process runs here for good, and this agent ends: remove what is left when all is in.

    With `told` the source knows it, and the migration's directory is not needed any more.
    """

    told: bool


class Counted(Message, frozen=True, kw_only=True, tag="counted"):
    """The answer to Finish: so many pages would be left to the daemon, `elsewhere` of them are
    still on the source; and whether it stands."""

    pages: Pages
    elsewhere: Pages = 0
    started: bool = False


class Standing(Message, frozen=True, kw_only=True, tag="standing"):
    """The answer to Look: pages in all, and given so far, in the seconds since the first.

    `never_asked` is known in the end: what the tree gave up before it was in.  `lacking` pages are
    on the source alone.  `failure` says what FAILED means.
    """

    stage: Stage
    pages: Pages = 0
    given: Pages = 0
    never_asked: Pages = 0
    lacking: Pages = 0
    seconds: float = 0.0
    failure: Failed | None = None

    @property
    def failed(self) -> str:
        """Why the memory did not come, in words; "" where it did, or still may."""
        return self.failure.what if self.failure is not None else ""


KeeperRequest = Abandon | Add | Attach | Finish | Guard | Look | Leave | GiveUp
"""What the agent may ask."""

KeeperAnswer = Here | Done | Counted | Standing | Failed
"""What the keeper may say."""

_requests: Final[msgspec.json.Decoder[KeeperRequest]] = msgspec.json.Decoder(KeeperRequest)
_answers: Final[msgspec.json.Decoder[KeeperAnswer]] = msgspec.json.Decoder(KeeperAnswer)


def encode(message: KeeperRequest | KeeperAnswer) -> bytes:
    """The message as one packet; raises UsageError if a field has a value that may not be sent."""
    return codec.encode(message, MAX_PACKET)


def decode_request(packet: bytes) -> KeeperRequest:
    """What the agent asks; raises ProtocolError if it is nothing that it may."""
    return _decode(_requests, packet)


def decode_answer(packet: bytes) -> KeeperAnswer:
    """What the keeper says; raises ProtocolError if it is nothing that it may."""
    return _decode(_answers, packet)


def _decode(decoder: "msgspec.json.Decoder[T]", packet: bytes) -> T:
    try:
        return decoder.decode(packet)
    except codec.UNREADABLE as error:
        raise ProtocolError(f"no message between an agent and its keeper: {error}") from error
