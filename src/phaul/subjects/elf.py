"""The build-id of an ELF file, from its notes.

Used in preflight, on both hosts.  Looks at what CRIU looks at: the first mebibyte (its
`files-reg.c`), so that what is compared beforehand is what the restore compares.
"""

import os
import struct
from typing import Final

__all__ = ["build_id", "read_build_id"]

_LOOKED_AT: Final = 1 << 20
_MAGIC: Final = b"\x7fELF"
_PT_NOTE: Final = 4
_NT_GNU_BUILD_ID: Final = 3
_MOST_HEADERS: Final = 512
_MOST_NOTES: Final = 1024
_MOST_BYTES: Final = 64
"""Of a build-id; 20 are usual, and a message takes 64."""


def read_build_id(fd: int) -> str:
    """The build-id of an open regular file in hexadecimal, "" if it has none; raises OSError."""
    head = os.pread(fd, len(_MAGIC), 0)
    return build_id(os.pread(fd, _LOOKED_AT, 0)) if head == _MAGIC else ""


def build_id(data: bytes) -> str:
    """The build-id in the beginning of a file; "" if there is none, or it is no sound ELF."""
    try:
        return _find(data)
    except struct.error:  # it points beyond its end
        return ""


def _find(data: bytes) -> str:
    if data[:4] != _MAGIC or data[4:5] not in (b"\1", b"\2") or data[5:6] not in (b"\1", b"\2"):
        return ""
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    offset, size, count = struct.unpack_from(order + ("32xQ14xHH" if wide else "28xI10xHH"), data)
    for at in range(min(count, _MOST_HEADERS)):
        header = offset + at * size
        if header > len(data):
            break
        if wide:
            kind, start, length = struct.unpack_from(order + "I4xQ16xQ", data, header)
        else:
            kind, start, length = struct.unpack_from(order + "II8xI", data, header)
        if kind == _PT_NOTE and (found := _note(data, order, start, start + length)):
            return found
    return ""


def _note(data: bytes, order: str, at: int, end: int) -> str:
    for _ in range(_MOST_NOTES):
        if at + 12 > min(end, len(data)):
            break
        name, size, kind = struct.unpack_from(order + "III", data, at)
        start = at + 12 + (name + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID:
            found = data[start : start + size]
            return found.hex() if 0 < size <= _MOST_BYTES and len(found) == size else ""
        at = start + (size + 3 & ~3)
    return ""
