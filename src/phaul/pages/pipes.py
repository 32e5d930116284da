"""Pipes through which memory goes from one descriptor to another without a copy.

Used on both hosts.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

__all__ = ["SIZE", "large_pipe"]

SIZE: Final = 1 << 20
"""The largest pipe that is had without CAP_SYS_RESOURCE, in bytes."""


def large_pipe() -> tuple[int, int]:
    """A pipe of that size, or as it is where that may not be: its reading end, and its other."""
    reader, writer = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SIZE)
    return reader, writer
