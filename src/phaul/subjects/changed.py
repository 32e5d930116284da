"""How much of huge pages that are marked as written really changed: a sample of them is compared.

Used on the source, in preflight and before the rounds of a pre-copy, while the process runs.  The
kernel's mark is one for all 2 MiB, so nothing but the contents tells.  What was written as it was
before does not show: it would not have to be sent either.
"""

import os
import random
from collections.abc import Sequence
from typing import Final

from phaul.subjects.huge import HUGE_PAGE
from phaul.subjects.proc import Proc

__all__ = ["Sample", "changed_pages"]

_MOST: Final = 8
"""Huge pages that are compared: read in some 25 ms, natively, and kept until the next look."""
_PAGE: Final = 4096


def changed_pages(before: bytes, after: bytes) -> int:
    """In how many pages two contents of the same memory differ."""
    if before == after:
        return 0
    size = min(len(before), len(after))
    return sum(before[at : at + _PAGE] != after[at : at + _PAGE] for at in range(0, size, _PAGE))


class Sample:
    """Some of `blocks`, which are huge pages that were written to: (PID, address) each."""

    def __init__(self, blocks: Sequence[tuple[int, int]], proc: Proc | None = None) -> None:
        self._proc = proc or Proc()
        self._blocks = random.sample(blocks, min(_MOST, len(blocks)))
        self._seen: dict[tuple[int, int], bytes] = {}

    def look(self) -> float | None:
        """How many times as much was marked as changed, since the last look: 1 to 512.

        None the first time, and if nothing changed, or is there any more.  Blocks.
        """
        marked = changed = 0
        seen = {}
        for block in self._blocks:
            content = self._read(*block)
            if content is None:
                continue
            seen[block] = content
            if block in self._seen and (pages := changed_pages(self._seen[block], content)):
                marked += HUGE_PAGE // _PAGE
                changed += pages
        self._seen = seen
        return marked / changed if changed else None

    def _read(self, pid: int, address: int) -> bytes | None:
        try:
            file = os.open(self._proc.path(pid, "mem"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            content = os.pread(file, HUGE_PAGE, address)
        except OSError:  # it is not mapped any more
            return None
        finally:
            os.close(file)
        return content if len(content) == HUGE_PAGE else None
