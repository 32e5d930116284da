"""The messages by which a host is let in: one request, one answer, in control frames.

Used once for each pair of hosts, before any migration.  Pure.  The request is sent only after the
other side's certificate has been compared with the token's; the answer only after it is stored.
"""

from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from phaul.errors import ProtocolError
from phaul.protocol.frames import Frame, Kind, pack
from phaul.protocol.types import HostName, Message, Text

__all__ = [
    "MOST_BYTES",
    "Join",
    "JoinAnswer",
    "JoinRefused",
    "Joined",
    "decode_join",
    "decode_join_answer",
    "frame",
]

MOST_BYTES: Final = 32 << 10
"""Neither message is larger, in bytes; a certificate takes most of it."""

T = TypeVar("T")

Certificate = Annotated[str, Meta(min_length=1, max_length=8192)]


class Join(Message, frozen=True, kw_only=True, tag="join"):
    """Let me in: the secret of the token, who I am, and how you may call me."""

    secret: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    certificate: Certificate
    host: HostName


class Joined(Message, frozen=True, kw_only=True, tag="joined"):
    """You may come in; `name` is what I call you."""

    name: Annotated[str, Meta(max_length=63)]


class JoinRefused(Message, frozen=True, kw_only=True, tag="refused"):
    """You may not: the secret is wrong, no token is out (any more), or it failed over there."""

    why: Literal["wrong", "expired", "failed"]
    what: Text


JoinAnswer = Joined | JoinRefused

_joins: Final[msgspec.json.Decoder[Join]] = msgspec.json.Decoder(Join)
_answers: Final[msgspec.json.Decoder[JoinAnswer]] = msgspec.json.Decoder(JoinAnswer)


def frame(message: Join | JoinAnswer) -> bytes:
    """The message as a frame."""
    return pack(Frame(Kind.CONTROL, msgspec.json.encode(message)))


def decode_join(received: Frame) -> Join:
    """The request in a frame; raises ProtocolError if it is none."""
    return _decode(_joins, received)


def decode_join_answer(received: Frame) -> JoinAnswer:
    """The answer in a frame; raises ProtocolError if it is none."""
    return _decode(_answers, received)


def _decode(decoder: "msgspec.json.Decoder[T]", received: Frame) -> T:
    if received.kind is not Kind.CONTROL or len(received.payload) > MOST_BYTES:
        raise ProtocolError("the other side sent what cannot be a message of joining")
    try:
        return decoder.decode(received.payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # Without the text: it could quote a secret.
        raise ProtocolError("the other side sent what is no message of joining") from error
