"""What `criu lazy-pages` asks a page server, and how it is answered.  Pure.

Used on the destination, after the restore, and in a post-copy on the source.  Each message begins
with a header (`pageserver`):

    GET      -->  pages wanted, from the address on
             <--  ADD_F with PRESENT, the pages given, fewer or all; then their bytes
    CLOSE    -->
             <--  i32 0

Answers have to come in the order of the questions.  The daemon has a buffer for as many pages as it
asked for, and takes none at all for an error.
"""

import struct
from dataclasses import dataclass
from typing import Final

from phaul.errors import PageStoreError
from phaul.pages import pageserver as ps
from phaul.pages.store.index import PAGE

__all__ = ["MOST_PAGES", "Close", "Get", "Wire"]

MOST_PAGES: Final = 1 << 16
"""The most pages that are believed to be asked for at once; CRIU asks for 1,024 at most."""

_GIVEN: Final = ps.ADD_F | ps.PRESENT << ps.FLAGS
_MOST_ID: Final = (1 << 31) - 1  # CRIU compares what comes back as an int


@dataclass(frozen=True, slots=True)
class Get:
    """`pages` pages from `address` on, of the page map numbered `pagemap`."""

    pagemap: int
    address: int
    pages: int


@dataclass(frozen=True, slots=True)
class Close:
    """The daemon has all that it needs."""


class Wire:
    """The codec; `wide` is for CRIU from 4.2 on (`Version.wide_page_server`)."""

    def __init__(self, *, wide: bool) -> None:
        self._header = ps.header(wide=wide)
        self.size = self._header.size

    def decode(self, data: bytes) -> Get | Close:
        """The question in a header of `size` bytes; raises PageStoreError if it is none."""
        command, pages, address, pagemap = self._unpack(data)
        if command in (ps.CLOSE, ps.FORCE_CLOSE):
            return Close()
        if command != ps.GET:
            raise PageStoreError(f"criu asked for the unknown command {command:#x}")
        if (
            not 0 < pages <= MOST_PAGES
            or address % PAGE
            or address + pages * PAGE > 1 << 64
            or not 0 < pagemap <= _MOST_ID
        ):
            raise PageStoreError(
                f"criu asked for {pages} pages at {address:#x} of page map {pagemap}"
            )
        return Get(pagemap, address, pages)

    def encode(self, question: Get | Close) -> bytes:
        """The header of a question."""
        if isinstance(question, Close):
            return self._header.pack(ps.FORCE_CLOSE, 0, 0, 0)
        return self._header.pack(ps.GET, question.pages, question.address, question.pagemap)

    def answer(self, question: Get, pages: int) -> bytes:
        """The header before the bytes of the first `pages` of what was asked for."""
        if not 0 < pages <= question.pages:
            raise ValueError(f"{pages} pages are no answer to {question}")
        return self._header.pack(_GIVEN, pages, question.address, question.pagemap)

    def answered(self, data: bytes) -> Get:
        """What a header of an answer says that it brings; raises PageStoreError if it is none."""
        command, pages, address, pagemap = self._unpack(data)
        if command != _GIVEN:
            raise PageStoreError(f"the page store answered with the command {command:#x}")
        return Get(pagemap, address, pages)

    def _unpack(self, data: bytes) -> tuple[int, int, int, int]:
        try:
            command, pages, address, pagemap = self._header.unpack(data)
        except struct.error as error:
            raise PageStoreError(f"{len(data)} bytes are no header of {self.size}") from error
        return command, pages, address, pagemap
