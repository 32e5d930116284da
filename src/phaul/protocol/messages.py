"""The messages, and their form on the wire: JSON, typed, with a bound on everything.

Used in every phase, on both hosts.  Pure.  What is decoded has been checked: no name can leave a
directory, no number is out of range, no list or text is longer than said here.  What is encoded is
checked by the same rules, so that what one side sends the other takes.
"""

from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from phaul.errors import ProtocolError
from phaul.protocol import codec
from phaul.protocol.frames import MAX_CONTROL
from phaul.protocol.parts import CriuVersion, HostFacts, RestoreOptions, Versions
from phaul.protocol.preflight import Findings, Needs
from phaul.protocol.settlement import Copy
from phaul.protocol.types import (
    Bytes,
    HostName,
    ImageName,
    MigrationId,
    Name,
    Pages,
    Pid,
    RoundNumber,
    Text,
    Token,
    VersionNumber,
)
from phaul.protocol.types import Message as MessageBase

__all__ = [
    "Abandon",
    "Alive",
    "Answer",
    "Ask",
    "Attach",
    "Bye",
    "Clock",
    "Commit",
    "CriuVersion",
    "Discard",
    "Done",
    "Drain",
    "Draining",
    "Failed",
    "Follow",
    "Hello",
    "HostFacts",
    "Image",
    "Message",
    "Prepare",
    "Ready",
    "Recover",
    "Request",
    "Restore",
    "RestoreOptions",
    "Running",
    "Standing",
    "StartRound",
    "StopRound",
    "Survey",
    "Surveyed",
    "Time",
    "Versions",
    "Welcome",
    "decode_answer",
    "decode_request",
    "encode",
]

T = TypeVar("T")


class Hello(MessageBase, frozen=True, kw_only=True, tag="hello"):
    """The first message, from the source.

    With `settle` it is not to begin a migration but to settle one, see Ask.
    """

    versions: Versions
    phaul: Name
    host: HostName
    criu: CriuVersion
    migration: MigrationId
    settle: bool = False


class Prepare(MessageBase, frozen=True, kw_only=True, tag="prepare"):
    """What is going to come: the tree's PIDs, its memory, and how it is to be restored.

    The source has opened the memory channel before.  `framed` says that what it sends there is in
    frames, which may be compressed.  `keep_images` leaves the images behind at the end.

    `key` names this migration for ever, and whoever knows it may settle it.  A copy that stands
    ready without a word from the source is held for `lease_s` seconds; then only what it can be
    restored from is kept.  `name` is the process's, for people.

    `restore` is how its memory is restored: lazily, which is brought in when it runs, in full
    before it does, or as is shorter.
    """

    key: Token
    lease_s: Annotated[int, Meta(ge=1, le=604_800)] = 600
    name: Annotated[str, Meta(max_length=256)] = ""

    pids: Annotated[tuple[Pid, ...], Meta(min_length=1, max_length=16_384)]
    memory_bytes: Bytes
    options: RestoreOptions = RestoreOptions()
    framed: bool = False
    keep_images: bool = False
    restore: Literal["auto", "lazy", "full"] = "auto"


class Clock(MessageBase, frozen=True, kw_only=True, tag="clock"):
    """What time is it there?  Asked for the offset of the two clocks."""


class Survey(MessageBase, frozen=True, kw_only=True, tag="survey"):
    """Look whether your host has what the tree needs; may be asked in several turns."""

    needs: Needs


class StartRound(MessageBase, frozen=True, kw_only=True, tag="start-round"):
    """Receive the memory of a round; they are numbered from 0."""

    number: RoundNumber


class StopRound(MessageBase, frozen=True, kw_only=True, tag="stop-round"):
    """The round is sent: answer when it is written."""

    number: RoundNumber


class Image(MessageBase, frozen=True, kw_only=True, tag="image"):
    """An image file of the final dump; raw frames of `size` bytes in all follow.  No answer."""

    name: ImageName
    size: Annotated[int, Meta(ge=0, le=1 << 40)]


class Restore(MessageBase, frozen=True, kw_only=True, tag="restore"):
    """All images are sent, `images` of them: restore, and hold the tree still."""

    images: Annotated[int, Meta(ge=1, le=1_000_000)]


class Commit(MessageBase, frozen=True, kw_only=True, tag="commit"):
    """The tree is gone from the source: let the restored one run.

    Asked again, it is answered again.
    """


class Drain(MessageBase, frozen=True, kw_only=True, tag="drain"):
    """It runs: how much of its memory is still to come?  Answered when all is in, or after 1 s."""


class Follow(MessageBase, frozen=True, kw_only=True, tag="follow"):
    """No round: what the final dump leaves out stays on the source, and follows over the memory
    channel, on demand.  Its images come next."""


class Attach(MessageBase, frozen=True, kw_only=True, tag="attach"):
    """Memory still follows, and the link was lost: go on over this connection's memory channel."""


class Abandon(MessageBase, frozen=True, kw_only=True, tag="abandon"):
    """The memory that follows is lost here: end the process that waits for it, leave nothing."""


class Discard(MessageBase, frozen=True, kw_only=True, tag="discard"):
    """Give up: end the held copy if there is one, remove what was received."""


class Ask(MessageBase, frozen=True, kw_only=True, tag="ask"):
    """What is there of the migration with this key?  Then Commit, Discard and Recover are of it.

    With `act` what stands in the way of that is ended: an agent that hangs, a copy whose agent is
    dead.  Without, it is only looked, and nothing can be asked for after it.
    """

    key: Token
    act: bool = False


class Recover(MessageBase, frozen=True, kw_only=True, tag="recover"):
    """Restore again, from the images that were kept, and hold it."""


class Bye(MessageBase, frozen=True, kw_only=True, tag="bye"):
    """Clean up; the answer is the last message."""


class Welcome(MessageBase, frozen=True, kw_only=True, tag="welcome"):
    """The answer to Hello: the version chosen, facts, and the token of the memory channel."""

    version: VersionNumber
    facts: HostFacts
    token: Token


class Time(MessageBase, frozen=True, kw_only=True, tag="time"):
    """The answer to Clock: nanoseconds since the epoch, by CLOCK_REALTIME."""

    unix_ns: Annotated[int, Meta(ge=0, le=1 << 62)]


class Surveyed(MessageBase, frozen=True, kw_only=True, tag="surveyed"):
    """The answer to Survey: what is wrong; and what is right, one finding a check."""

    findings: Findings


class Done(MessageBase, frozen=True, kw_only=True, tag="done"):
    """The request is fulfilled."""


class Ready(MessageBase, frozen=True, kw_only=True, tag="ready"):
    """The tree stands restored and still; `pid` is its root.

    `durable` says that what it was restored from is on the disk: then it also outlives a power cut.
    `lazy` says that its memory comes when it runs.
    """

    pid: Pid
    durable: bool = True
    lazy: bool = False


class Running(MessageBase, frozen=True, kw_only=True, tag="running"):
    """The answer to Commit: it runs here."""


class Draining(MessageBase, frozen=True, kw_only=True, tag="draining"):
    """The answer to Drain: pages that were left out of the restore, and those that are in.

    `over` if nothing more will come; where `failure` says why, the process was ended.  `seconds`
    are from the first page to the last.
    """

    pages: Pages
    given: Pages
    seconds: Annotated[float, Meta(ge=0, le=1e9)]
    over: bool
    failure: Text = ""


class Standing(MessageBase, frozen=True, kw_only=True, tag="standing"):
    """The answer to Ask: what is there, and of the copy its root's PID, if it is known.

    `path` is where its images and its journal are.  Of one that runs, `lacking` pages of its memory
    are still on the source alone; where it was ended since, `lost` says why.
    """

    copy: Copy
    pid: Pid | None = None
    path: Text = ""
    lacking: Pages = 0
    lost: Text = ""


class Failed(MessageBase, frozen=True, kw_only=True, tag="failed"):
    """The request failed: the fields of the error, see `phaul.protocol.failure`."""

    kind: Name
    what: Text
    host: Text = ""
    remedy: Text = ""
    fate: Text = ""
    request: Text = ""
    line: Text = ""
    log_path: Text = ""
    errno: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)] = 0
    notes: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()
    log: Annotated[str, Meta(max_length=32_768)] = ""


class Alive(MessageBase, frozen=True, kw_only=True, tag="alive"):
    """Still there, and at work.  Either side, at any time; no answer."""


Request = (
    Hello
    | Clock
    | Survey
    | Prepare
    | StartRound
    | StopRound
    | Follow
    | Image
    | Restore
    | Commit
    | Drain
    | Discard
    | Ask
    | Attach
    | Abandon
    | Recover
    | Bye
    | Alive
)
"""What the source may send."""

Answer = Welcome | Time | Surveyed | Done | Ready | Running | Draining | Standing | Failed | Alive
"""What the agent may send."""

Message = Request | Answer
"""Any message."""

_requests: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_answers: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


def encode(message: Message) -> bytes:
    """The message on the wire; raises UsageError if a field has a value that may not be sent."""
    return codec.encode(message, MAX_CONTROL)


def decode_request(payload: bytes) -> Request:
    """The source's message in a control frame; raises ProtocolError if it is none."""
    return _decode(_requests, payload)


def decode_answer(payload: bytes) -> Answer:
    """The agent's message in a control frame; raises ProtocolError if it is none."""
    return _decode(_answers, payload)


def _decode(decoder: "msgspec.json.Decoder[T]", payload: bytes) -> T:
    if len(payload) > MAX_CONTROL:
        raise ProtocolError(f"a message of {len(payload)} bytes, {MAX_CONTROL} at most")
    try:
        return decoder.decode(payload)
    except codec.UNREADABLE as error:
        # The text may quote what was sent, which then must not play with a terminal.
        said = "".join(c if c.isprintable() else "?" for c in str(error)[:200])
        raise ProtocolError(f"the other side sent what is no message: {said}") from error
