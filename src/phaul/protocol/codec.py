"""How a message becomes bytes.  Pure.

Used on both hosts, by each kind of messages.
"""

from typing import Final

import msgspec

from phaul.errors import UsageError
from phaul.protocol.types import Message

__all__ = ["UNREADABLE", "encode"]

_encoder: Final = msgspec.json.Encoder()
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What a decoder raises, whatever it is given."""


def encode(message: Message, most: int) -> bytes:
    """The message in at most `most` bytes.

    Raises UsageError if a field has a value that may not be sent, or it is too long.
    """
    name = type(message).__name__
    try:
        data = _encoder.encode(message)
        msgspec.json.decode(data, type=type(message))
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise UsageError(f"{name} cannot be sent: {error}") from error
    if len(data) > most:
        raise UsageError(f"{name} has {len(data)} bytes, {most} at most")
    return data
