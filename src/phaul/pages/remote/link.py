"""What is said over the link between the page store and the source.  Pure.

Used on both hosts, in a post-copy.  Each message is a header of 20 bytes in network order:

    u8 kind, u8 urgent, 2 bytes unused, u32 pages, u32 page map, u64 address

    ASK    to the source        pages wanted, from the address on; `urgent` if somebody waits
    PAGES  to the destination   pages given; their bytes follow.  An answer may come in pieces
    LOST   to the destination   the source has lost the memory, and has no more to give
    DONE   to the source        no more is needed; it says the same back, and ends
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from phaul.errors import PageStoreError
from phaul.pages.store.index import PAGE

__all__ = ["MOST_ASKED", "MOST_GIVEN", "SIZE", "Kind", "Message", "decode"]

MOST_GIVEN: Final = 64
"""The most pages in one piece of an answer, 256 KiB: what is urgent waits for no more than that."""

MOST_ASKED: Final = 512
"""The most pages that are asked for at once."""

_HEADER: Final = struct.Struct("!BB2xIIQ")
SIZE: Final = _HEADER.size
"""The size of a header, in bytes."""
_MOST_ID: Final = (1 << 31) - 1


class Kind(IntEnum):
    """The kinds of messages."""

    ASK = 1
    PAGES = 2
    LOST = 3
    DONE = 4


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `pages` from `address` on of the page map `pagemap`, for ASK and PAGES."""

    kind: Kind
    pagemap: int = 0
    address: int = 0
    pages: int = 0
    urgent: bool = False

    def encode(self) -> bytes:
        """The header."""
        return _HEADER.pack(self.kind, self.urgent, self.pages, self.pagemap, self.address)


def decode(data: bytes) -> Message:
    """The message with this header; raises PageStoreError if it is none."""
    try:
        number, urgent, pages, pagemap, address = _HEADER.unpack(data)
        kind = Kind(number)
    except (struct.error, ValueError) as error:
        raise PageStoreError(f"what came over the link is no message: {error}") from error
    most = {Kind.ASK: MOST_ASKED, Kind.PAGES: MOST_GIVEN}.get(kind, 0)
    if (
        pages > most
        or (most and not pages)
        or address % PAGE
        or address + pages * PAGE > 1 << 64
        or pagemap > _MOST_ID
        or urgent > 1
    ):
        raise PageStoreError(f"{kind.name} came with {pages} pages at {address:#x} of {pagemap}")
    return Message(kind, pagemap, address, pages, bool(urgent))
