"""The container of CRIU's image files: magic numbers, then messages with their lengths.

Used after each round and in the cutover, on both hosts.  It reads, and does nothing else.

    u32 magic of the family   0x54564319 for images, 0x55105940 for service files
    u32 magic of the type     the inventory has only this one
    u32 length, message       repeated, little-endian
"""

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from phaul.errors import ImageError

__all__ = ["COMMON_MAGIC", "SERVICE_MAGIC", "read_messages"]

COMMON_MAGIC: Final = 0x54564319
SERVICE_MAGIC: Final = 0x55105940

_U32 = struct.Struct("<I")


def read_messages(path: Path, magics: tuple[int, ...], limit: int) -> Iterator[bytes]:
    """The messages of the image file `path`, whose head must be `magics`; `limit` bytes at most.

    Read as they are asked for: a length is believed only as far as the file is long.
    Raises ImageError if the file cannot be read, is longer than `limit`, truncated or foreign.
    """
    with _open(path) as file:
        try:
            yield from _messages(path, file, magics, limit)
        except OSError as err:
            raise ImageError(f"{path}: cannot be read: {err}") from err


def _open(path: Path) -> BinaryIO:
    # Not Path.open: a FIFO or a device under an image's name must not be waited for or read.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        raise ImageError(f"{path}: cannot be opened: {err}") from err
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"{path}: not a regular file")
    return os.fdopen(descriptor, "rb")


def _messages(path: Path, file: BinaryIO, magics: tuple[int, ...], limit: int) -> Iterator[bytes]:
    info = os.fstat(file.fileno())
    if info.st_size > limit:
        raise ImageError(f"{path}: {info.st_size} bytes, at most {limit} are expected")
    left = info.st_size

    def take(length: int, what: str) -> bytes:
        nonlocal left
        data = file.read(length) if length <= left else b""
        if len(data) != length:
            at = info.st_size - left
            raise ImageError(
                f"{path}: truncated: {what} of {length} bytes at byte {at}, only {left} are left"
            )
        left -= length
        return data

    for magic in magics:
        (found,) = _U32.unpack(take(_U32.size, "a magic number"))
        if found != magic:
            raise ImageError(f"{path}: magic number {found:#010x}, expected {magic:#010x}")
    while left:
        (length,) = _U32.unpack(take(_U32.size, "a length"))
        yield take(length, "a message")
