"""This CPU: can it do what the source's can?

Used in preflight, on the destination.  CRIU compares: instructions, and how the FPU's state is
laid out (its CPUINFO_CHECK, with its own choice of what counts).
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, printable
from phaul.errors import CriuError, PhaulError
from phaul.protocol.preflight import CpuNeed, Finding

__all__ = ["look"]

_MOST: Final = 4
"""Different images that are looked at: a tree has one."""
_IMAGE: Final = "cpuinfo.img"
_REMEDY: Final = (
    "move to a host with the same or a newer CPU; --allow cpu if you know that the process uses "
    "none of what is missing: it dies by SIGILL if it does"
)


async def look(needs: Sequence[CpuNeed], context: CheckContext) -> list[Finding]:
    """The findings of `cpu`.  Raises OSError."""
    sheet = Sheet("cpu")
    different = list(dict.fromkeys(needs))
    for need in different[:_MOST]:
        if need.machine != context.machine:
            sheet.no(
                f"the CPU is {context.machine} there, {printable(need.machine)} on the source",
                "move to a host of the same kind",
            )
        else:
            await _compare(sheet, need.image, context)
    if len(different) > _MOST:
        sheet.no(
            f"{len(different) - _MOST} more descriptions of a CPU were not looked at",
            "install the same phaul on both hosts: a tree has one",
        )
    if not sheet.found:
        sheet.ok(f"the {context.machine} there can do what the source's can")
    return sheet.found


async def _compare(sheet: Sheet, image: bytes, context: CheckContext) -> None:
    # mkdtemp's mode is 0700.
    with TemporaryDirectory(prefix="phaul-cpu-") as folder:
        (Path(folder) / _IMAGE).write_bytes(image)
        try:
            await context.engine.check_cpuinfo(Path(folder))
        except CriuError as error:
            said = error.line or error.what
            sheet.no(f"the CPU cannot do there what the source's can: {said}", _REMEDY)
        except PhaulError as error:
            sheet.no(f"the CPU cannot be compared there: {error.what}", error.remedy)
