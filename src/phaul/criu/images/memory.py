"""`mm-*.img`: the mappings of a process; read on the destination, for a lazy restore.

Used in the cutover: CRIU serves a mapping lazily by what stands here, whatever its pages say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phaul.criu.images.container import COMMON_MAGIC, read_messages
from phaul.criu.messages import parse
from phaul.errors import ImageError

__all__ = ["Area", "lazy_spans", "read_areas"]

_MAGICS: Final = (COMMON_MAGIC, 0x57492820)
# A mapping takes some 60 bytes; the kernel's own limit on mappings is 65,530, and is raised rarely.
_LIMIT: Final = 1 << 28

_PRIVATE: Final = 0x02
_ANONYMOUS: Final = 0x20
_LOCKED: Final = 0x2000
_HUGETLB: Final = 0x40000
# CRIU's own: the vsyscall page, the vDSO and its data.
_OF_THE_KERNEL: Final = 1 << 2 | 1 << 3 | 1 << 12
# Pages that nobody may touch (MADV_GUARD_INSTALL), within the mapping before it; they hold nothing.
_GUARD: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping from `start` to before `end`: the flags of mmap(2), and CRIU's status bits."""

    start: int
    end: int
    flags: int
    status: int

    @property
    def may_be_lazy(self) -> bool:
        """Whether CRIU watches it with userfaultfd: private anonymous memory, of ordinary pages.

        A page elsewhere must not be left out of a restore: nobody would ever bring it.
        """
        wanted = _PRIVATE | _ANONYMOUS
        return (
            self.flags & (wanted | _LOCKED | _HUGETLB) == wanted
            and not self.status & _OF_THE_KERNEL
        )


def read_areas(path: Path) -> tuple[Area, ...]:
    """The mappings in the file `path`, in order of their addresses; raises ImageError."""
    messages = list(read_messages(path, _MAGICS, _LIMIT))
    if len(messages) != 1:
        raise ImageError(f"{path}: {len(messages)} messages, expected 1")
    found = []
    end = 0
    for wire in parse("Memory", messages[0], str(path)).vmas:
        if wire.status & _GUARD:
            continue
        if not end <= wire.start < wire.end:
            raise ImageError(f"{path}: the mapping at {wire.start:#x} is out of order")
        end = wire.end
        found.append(Area(wire.start, wire.end, wire.flags, wire.status))
    return tuple(found)


def lazy_spans(areas: Sequence[Area]) -> list[tuple[int, int]]:
    """Where memory may be lazy: start and end of each stretch, in order, none touching the next."""
    spans: list[tuple[int, int]] = []
    for area in areas:
        if not area.may_be_lazy:
            continue
        if spans and spans[-1][1] == area.start:
            spans[-1] = (spans[-1][0], area.end)
        else:
            spans.append((area.start, area.end))
    return spans
