"""The build-id of an ELF file, read the way CRIU reads it.

Used in preflight, on both hosts: CRIU refuses to restore a file whose build-id is another one than
on the source, so both ends have to see what CRIU sees.  From its `files-reg.c` (4.2): it looks at
the first MiB only, takes numbers in this machine's byte order, and takes the first note of type 3
in a PT_NOTE segment, whatever the note's name is.  The file is foreign: every length is believed
only as far as the file is long, and of program headers and notes 64 KiB are read at most.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["build_id", "find_build_id"]

Reader = Callable[[int, int], bytes]
"""Up to so many bytes from an offset; fewer at the end of the file."""

_WINDOW: Final = 1 << 20
_MOST: Final = 64 << 10
_LONGEST: Final = 64
"""Of a build-id, in bytes: 20 is usual, and more than 64 has no place in a `FileNeed`."""
_PT_NOTE: Final = 4
_BUILD_ID: Final = 3
_NOTE = struct.Struct("=III")


class _Layout:
    """Where a class of ELF, 32 or 64 bits, has what is looked for."""

    def __init__(self, header: str, segment: str, offset: int, size: int) -> None:
        self.header = struct.Struct(header)
        self.segment = struct.Struct(segment)
        self.offset = offset
        self.size = size


# Of the file's header e_phoff, e_phentsize and e_phnum; of a segment's p_type, p_offset, p_filesz.
_LAYOUTS: Final = {
    1: _Layout("=28xI10xHH6x", "=8I", offset=1, size=4),
    2: _Layout("=32xQ14xHH6x", "=II6Q", offset=2, size=5),
}


def build_id(descriptor: int) -> str:
    """The build-id of an open file in hexadecimal, "" if it has none or is no ELF file.

    The descriptor must be of a regular file; its offset stays.  Raises OSError.
    """
    return find_build_id(lambda offset, count: os.pread(descriptor, count, offset))


def find_build_id(read: Reader) -> str:
    """The same over a reader, which is asked for at most some 128 KiB; raises what it raises."""

    def window(offset: int, count: int) -> bytes:
        count = min(count, _WINDOW - offset)
        return read(offset, count) if count > 0 else b""

    head = window(0, 64)
    layout = _LAYOUTS.get(head[4]) if head[:4] == b"\x7fELF" and len(head) > 4 else None
    if layout is None or len(head) < layout.header.size:
        return ""
    table, _, count = layout.header.unpack_from(head)
    left = _MOST
    # CRIU goes by its own size of an entry, not by e_phentsize.
    segments = window(table, min(count * layout.segment.size, _MOST)) if table else b""
    whole = len(segments) - len(segments) % layout.segment.size
    for fields in layout.segment.iter_unpack(segments[:whole]):
        offset, size = fields[layout.offset], fields[layout.size]
        if fields[0] != _PT_NOTE or not offset or left <= 0:
            continue
        notes = window(offset, min(size, left))
        left -= len(notes)
        for kind, description in _notes(notes):
            if kind == _BUILD_ID:
                return description.hex() if len(description) <= _LONGEST else ""
    return ""


def _notes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The notes that are whole: their types and descriptions."""
    at = 0
    while at + _NOTE.size <= len(data):
        name, size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size + _aligned(name)
        if start + size > len(data):
            return
        yield kind, data[start : start + size]
        at = start + _aligned(size)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
