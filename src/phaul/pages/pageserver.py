"""What CRIU's page server and its askers agree on: the header of each command, and its number.

Used on the destination, and in a post-copy on the source.  Read in CRIU's page-xfer.c.  The header
is in the host's byte order, of 24 bytes up to CRIU 4.1 and of 32 from 4.2, which nothing in it
tells:

    u32 command, u32 pages, u64 address, u64 page map                       up to 4.1
    u32 command, 4 bytes unused, u64 pages, u64 address, u64 page map       from 4.2

The lower 16 bits of the command are its number, the upper ones the flags of a range.
"""

import struct
from typing import Final

__all__ = [
    "ADD",
    "ADD_F",
    "ASK_PARENT",
    "CLOSE",
    "CLOSED",
    "FLAGS",
    "FORCE_CLOSE",
    "GET",
    "HOLE",
    "OPEN",
    "OPEN2",
    "PARENT",
    "PRESENT",
    "header",
]

FLAGS: Final = 16
"""By so many bits the flags of a range are shifted."""
PARENT: Final = 1
PRESENT: Final = 4

CLOSED: Final = struct.pack("=i", 0)
"""The answer to CLOSE: all went well."""


ADD: Final = 1
HOLE: Final = 2
OPEN: Final = 3
OPEN2: Final = 4
ASK_PARENT: Final = 5
ADD_F: Final = 6
GET: Final = 7
CLOSE: Final = 0x1023
FORCE_CLOSE: Final = 0x1024
"""The commands (PS_IOV_*).  Plain numbers: there may be one for each page."""


def header(*, wide: bool) -> struct.Struct:
    """The header; `wide` is for CRIU from 4.2 on (`Version.wide_page_server`)."""
    return struct.Struct("=I4xQQQ" if wide else "=IIQQ")
