"""Frames: how messages and image bytes are cut out of a byte stream.

Used in every phase, on both hosts.  Pure: it is fed bytes, and gives frames.

    u32 length of the payload, big endian | u8 kind | payload
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

from phaul.errors import ProtocolError

__all__ = ["HEADER_BYTES", "MAX_CHUNK", "MAX_CONTROL", "Decoder", "Frame", "Kind", "header", "pack"]

_HEADER: Final = struct.Struct(">IB")
HEADER_BYTES: Final = _HEADER.size

MAX_CONTROL: Final = 256 << 10
"""The largest message.  The largest there is, a list of 16384 PIDs, takes half of it."""

MAX_CHUNK: Final = 1 << 20
"""The most bytes of an image in one frame."""

_SILENCE: Final = "let nothing over there write to standard output before phaul does"

_SHOWN: Final = 60
"""So much of a text that should not be there is quoted."""


class Kind(IntEnum):
    """What a frame carries."""

    CONTROL = 1
    """A message."""
    RAW = 2
    """Bytes of an image."""


_MOST: Final = {Kind.CONTROL: MAX_CONTROL, Kind.RAW: MAX_CHUNK}


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    payload: bytes


def header(kind: Kind, length: int) -> bytes:
    """The header of a frame; raises ValueError if none may be that long."""
    if not 1 <= length <= _MOST[kind]:
        raise ValueError(f"a frame of {length} bytes, it must have 1 to {_MOST[kind]}")
    return _HEADER.pack(length, kind)


def pack(frame: Frame) -> bytes:
    """The frame as bytes; raises ValueError if its payload is empty or too large."""
    return header(frame.kind, len(frame.payload)) + frame.payload


class Decoder:
    """Cuts frames out of the bytes that it is fed.

    Between calls it holds less than one frame.  After an error it stays broken, since nothing says
    where the next frame would begin.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._error = ""
        self._any = False

    @property
    def buffered(self) -> int:
        """The bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises ProtocolError if a header is wrong, as soon as the header is there; the frames before
        it in the same `data` are lost, as the conversation is.
        """
        if self._error:
            raise ProtocolError(self._error)
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        offset = 0
        while len(buffer) - offset >= HEADER_BYTES:
            length, number = _HEADER.unpack_from(buffer, offset)
            kind = self._check(length, number, offset)
            end = offset + HEADER_BYTES + length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                frames.append(Frame(kind, bytes(view[offset + HEADER_BYTES : end])))
            self._any = True
            offset = end
        del buffer[:offset]
        return frames

    def finish(self) -> None:
        """Say that the stream has ended; raises ProtocolError if it did within a frame."""
        if self._error:
            raise ProtocolError(self._error)
        if self._buffer:
            self._fail(f"the stream ended within a frame, after {len(self._buffer)} bytes of it")

    def _check(self, length: int, number: int, offset: int) -> Kind:
        kind = {1: Kind.CONTROL, 2: Kind.RAW}.get(number)
        if kind is None:
            self._fail(
                f"the other side sent a frame of the unknown kind {number}", offset, _SILENCE
            )
        if not 1 <= length <= _MOST[kind]:
            self._fail(
                f"the other side sent a frame of {length} bytes, it may have 1 to {_MOST[kind]}",
                offset,
            )
        return kind

    def _fail(self, what: str, offset: int = 0, remedy: str = "") -> NoReturn:
        text = _text(self._buffer[offset : offset + _SHOWN]) if not self._any else ""
        if text:
            # The classic: a shell's start-up files that write, before the agent gets its word in.
            what = f"the other side sent text instead of a message: {text!r}"
            remedy = _SILENCE
        self._error = what
        self._buffer.clear()
        raise ProtocolError(what, remedy=remedy)


def _text(data: bytes | bytearray) -> str:
    """The data's first line if it is a person's text, otherwise empty."""
    text = data.decode("ascii", "replace").strip()
    plain = (
        text and all(c.isprintable() or c in "\r\n\t\x1b" for c in text) and "\ufffd" not in text
    )
    return text.splitlines()[0] if plain else ""
