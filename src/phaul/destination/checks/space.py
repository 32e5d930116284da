"""Space for the images in the agent's directory.

Used in preflight, on the destination.  In a file system that lies in memory, images are memory too.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.mounts import IN_MEMORY, read_mounts
from phaul.destination.checks.sheet import Sheet, octets, printable
from phaul.protocol.preflight import Finding, ImagesNeed

__all__ = ["in_memory", "look"]

_TIGHT: Final = 10
"""Per cent of the file system that should be left."""


def look(needs: Sequence[ImagesNeed], context: CheckContext) -> list[Finding]:
    """The findings of `space`.  Raises OSError."""
    sheet = Sheet("space")
    needed = sum(need.size for need in needs)
    folder = _existing(context.directory)
    system = os.statvfs(folder)
    what = f"{octets(needed)} of images go to {printable(str(context.directory))}"
    if not system.f_blocks:  # ramfs counts nothing
        sheet.ok(f"{what}, which has no limit but the memory")
        return sheet.found
    free = system.f_bavail * system.f_frsize
    remedy = "make room there, or let the agent have another directory"
    if needed > free:
        sheet.no(f"{what}, where {octets(free)} are free", remedy)
    elif (free - needed) * 100 < system.f_blocks * system.f_frsize * _TIGHT:
        left = octets(free - needed)
        sheet.warn(f"{what}, and leave {left}, under {_TIGHT} % of that file system", remedy)
    else:
        sheet.ok(f"{what}, where {octets(free)} are free")
    return sheet.found


def in_memory(context: CheckContext) -> bool:
    """Whether the images are going to lie in memory.  Raises OSError."""
    device = _existing(context.directory).stat().st_dev
    kinds = [mount.kind for mount in read_mounts(context.proc) if mount.device == device]
    return bool(kinds) and kinds[-1] in IN_MEMORY


def _existing(folder: Path) -> Path:
    """The directory, or the nearest above it that there is already."""
    for one in (folder, *folder.parents):
        if one.is_dir():
            return one
    return folder
