"""The framed form of the memory between two relays, in which it can be compressed.

Used on both hosts, from the first round to the end of the cutover; only what the source sends is
framed.

    u8 kind (0 raw, 1 zstd)   u32 length, big endian   that many bytes

A frame has 1 byte to 256 KiB, in the wire form and decoded, and is complete in itself: what CRIU
has written can be read on the other side at once.  The other side may be hostile: no length is
believed before it is checked, and nothing larger than a frame is ever allocated for it.
"""

import struct
import sys
from enum import Enum, IntEnum
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["CHUNK", "HEADER", "Compression", "FrameError", "Kind", "Packer", "header", "unpack"]

CHUNK: Final = 1 << 18
"""The most bytes of memory in a frame."""

HEADER: Final = struct.Struct("!BI")

_LEVEL: Final = 1
_WINDOW_LOG: Final = 18
# A frame that saves less than this part is sent as it is: it costs the other side nothing then.
_WORTH: Final = 8
_MOST_SKIPPED: Final = 32


class Compression(Enum):
    """What the source's relay does with the memory.

    NONE: nothing, it is not even framed.  ZSTD: compress all.  AUTO: compress what would otherwise
    only wait for the network.
    """

    NONE = "none"
    AUTO = "auto"
    ZSTD = "zstd"


class Kind(IntEnum):
    """What is in a frame."""

    RAW = 0
    ZSTD = 1


class FrameError(Exception):
    """What came is no frame; the message names the cause."""


def header(data: bytes) -> tuple[Kind, int]:
    """The kind and the length that the header `data` gives; raises FrameError."""
    number, length = HEADER.unpack(data)
    if number not in (Kind.RAW, Kind.ZSTD):
        raise FrameError(f"the other side sent a frame of the unknown kind {number}")
    if not 0 < length <= CHUNK:
        raise FrameError(f"the other side sent a frame of {length} bytes, 1 to {CHUNK} are allowed")
    return Kind(number), length


def unpack(data: bytes | bytearray | memoryview) -> bytes:
    """The memory in the bytes of a ZSTD frame, at most CHUNK bytes; raises FrameError."""
    decoder = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    )
    try:
        memory = decoder.decompress(data, max_length=CHUNK)
        # When all that is allowed is there, what is still to come may be the checksum alone.
        full = not decoder.eof and not decoder.needs_input
        if full and decoder.decompress(b"", max_length=1):
            raise FrameError(f"the other side sent a frame of more than {CHUNK} bytes")
    except zstd.ZstdError as error:
        raise FrameError(f"the other side sent a frame that cannot be decoded: {error}") from error
    if not decoder.eof or decoder.unused_data:
        raise FrameError("the other side sent a frame that is not one whole piece of zstd")
    if not memory:
        raise FrameError("the other side sent a frame with nothing in it")
    return memory


class Packer:
    """Compresses, each piece for itself; it notices memory that does not get smaller.

    With `patient`, of such memory ever fewer pieces are tried.
    `tried` tells whether the last piece was.
    """

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self.tried = False
        self._skip = self._skipped = 0
        parameter = zstd.CompressionParameter
        self._encoder = zstd.ZstdCompressor(
            options={
                parameter.compression_level: _LEVEL,
                parameter.window_log: _WINDOW_LOG,
                parameter.checksum_flag: 1,
            }
        )

    def pack(self, memory: memoryview) -> bytes | None:
        """The bytes of a ZSTD frame, None if the memory is better sent as it is."""
        self.tried = not self._patient or self._skipped >= self._skip
        if not self.tried:
            self._skipped += 1
            return None
        self._skipped = 0
        packed: bytes = self._encoder.compress(memory, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        if len(packed) > len(memory) - len(memory) // _WORTH:
            self._skip = min(max(2 * self._skip, 1), _MOST_SKIPPED)
            return None
        self._skip = 0
        return packed
