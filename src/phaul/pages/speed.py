"""How fast this host fills fresh memory from a file: what a restore mostly does.

Used on the destination when it introduces itself; the source's prediction of the downtime rests on
it.  An emulated machine is ten times slower than a real one, and only a measurement tells.
"""

import mmap
import os
import tempfile
import time
from pathlib import Path
from typing import Final

__all__ = ["USUAL", "restore_rate"]

USUAL: Final = 1_200_000_000
"""What a real machine does: 1 GB in 0.6 to 0.9 s."""

_BYTES: Final = 1 << 20
"""1 MiB: 2 ms natively, some 10 ms in an emulated machine."""


def restore_rate(directory: Path) -> int:
    """Bytes a second, 1 at least; `USUAL` if there is no room in `directory` to measure it."""
    try:
        return _measure(directory)
    except OSError:
        return USUAL  # that there is no room is preflight's to say


def _measure(directory: Path) -> int:
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(os.urandom(4096) * (_BYTES // 4096))
        file.flush()
        begun = time.monotonic()
        with mmap.mmap(-1, _BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            # Page by page, as it is restored where transparent huge pages are off.
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            done = os.preadv(file.fileno(), [memory], 0)
        seconds = time.monotonic() - begun
    return max(int(done / max(seconds, 1e-6)), 1)
