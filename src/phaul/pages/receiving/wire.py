"""What CRIU says to a page server while it dumps, command by command.  Pure.

Used on the destination, in each round and in the final dump.  A header a command (`pageserver`);
the pages of an Add that has PRESENT follow it.

    Open      a page map begins; `answered` wants one byte: whether the parent has it
    Ask       whether the parent has a page map, as a 32-bit number
    Add       a range of it
    Close     all is sent; wants a 32-bit 0
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from phaul.errors import PageStoreError
from phaul.pages import pageserver as ps
from phaul.pages.store.index import PAGE

__all__ = ["Add", "Ask", "Close", "Command", "Commands", "Kind", "Map", "Open"]

_ID_BITS: Final = 8
_MOST_ID: Final = (1 << 32) - 1


class Kind(Enum):
    """What a page map is of; the value is CRIU's number on the wire."""

    PROCESS = 1
    SHARED = 2


_KINDS: Final = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Map:
    """A page map: of a process, by its PID, or of shared memory."""

    kind: Kind
    id: int


@dataclass(frozen=True, slots=True)
class Open:
    """The page map `map` begins."""

    map: Map
    answered: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Does the parent have it?"""

    map: Map


@dataclass(frozen=True, slots=True)
class Add:
    """`pages` from `address` on, with the `flags` of their range (criu.images.PageFlags)."""

    map: Map
    address: int
    pages: int
    flags: int


@dataclass(frozen=True, slots=True)
class Close:
    """The round is over."""


Command = Open | Ask | Add | Close


class Commands:
    """The codec; `wide` is for CRIU from 4.2 on (`Version.wide_page_server`)."""

    def __init__(self, *, wide: bool) -> None:
        self._header = ps.header(wide=wide)
        self.size = self._header.size
        self._maps: dict[int, Map] = {}

    def decode(self, data: bytes) -> Command:
        """The command in a header of `size` bytes; raises PageStoreError if it is none."""
        word, pages, address, number = self._header.unpack(data)
        command, flags = word & ((1 << ps.FLAGS) - 1), word >> ps.FLAGS
        if command in (ps.CLOSE, ps.FORCE_CLOSE):
            return Close()
        found = self._maps.get(number) or self._map(number)
        if command in (ps.OPEN, ps.OPEN2):
            return Open(found, answered=command == ps.OPEN2)
        if command == ps.ASK_PARENT:
            return Ask(found)
        if command not in (ps.ADD, ps.HOLE, ps.ADD_F):
            raise PageStoreError(f"criu sent the unknown command {command:#x}")
        if command != ps.ADD_F:
            flags = ps.PRESENT if command == ps.ADD else ps.PARENT
        if not pages or address % PAGE or address + pages * PAGE > 1 << 64 or flags > 7:
            raise PageStoreError(f"criu sent {pages} pages at {address:#x}, flags {flags:#x}")
        return Add(found, address, pages, flags)

    def encode(self, command: Command) -> bytes:
        """The header of a command, as CRIU has it."""
        match command:
            case Open(map=of, answered=answered):
                word = ps.OPEN2 if answered else ps.OPEN
                return self._header.pack(word, 0, 0, _number(of))
            case Ask(map=of):
                return self._header.pack(ps.ASK_PARENT, 0, 0, _number(of))
            case Add():
                word = command.flags << ps.FLAGS | ps.ADD_F
                return self._header.pack(word, command.pages, command.address, _number(command.map))
            case Close():
                return self._header.pack(ps.FORCE_CLOSE, 0, 0, 0)

    def _map(self, number: int) -> Map:
        kind, of = _KINDS.get(number & ((1 << _ID_BITS) - 1)), number >> _ID_BITS
        if kind is None or not 0 < of <= _MOST_ID:
            raise PageStoreError(f"criu sent pages of the unknown page map {number:#x}")
        found = self._maps[number] = Map(kind, of)
        return found


def _number(of: Map) -> int:
    return of.id << _ID_BITS | of.kind.value
