"""Pipes as large as CRIU needs them in a post-copy, also without CAP_SYS_RESOURCE."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from phaul.criu.lazydump import PIPE

__all__ = ["LIMIT", "large_pipes", "restored"]

LIMIT: Final = Path("/proc/sys/fs/pipe-max-size")
"""The whole machine's; there is no other."""


@contextmanager
def restored() -> Iterator[None]:
    """The limit is as before afterwards."""
    before = LIMIT.read_text()
    try:
        yield
    finally:
        LIMIT.write_text(before)


@contextmanager
def large_pipes() -> Iterator[None]:
    """Pipes may be so large."""
    with restored():
        LIMIT.write_text(str(max(int(LIMIT.read_text()), PIPE)))
        yield
