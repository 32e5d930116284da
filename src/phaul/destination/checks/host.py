"""The destination's half of the preflight: needs in, findings out.

Used in preflight, on the destination, before anything is sent.  It changes nothing on the host.
The work is bounded by the needs, which are bounded by the protocol; what may hang (a file system of
the network) does so in a thread that is left behind.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from phaul.destination.checks import (
    addresses,
    cgroup,
    cpu,
    files,
    lsm,
    memory,
    namespaces,
    pids,
    space,
    tools,
)
from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, merged
from phaul.errors import PhaulError
from phaul.plan.catalogue import CHECKS
from phaul.protocol.preflight import (
    AddressNeed,
    CgroupNeed,
    CpuNeed,
    FileNeed,
    Finding,
    ImagesNeed,
    LsmNeed,
    MemoryNeed,
    NamespaceNeed,
    Need,
    PidsNeed,
    ToolNeed,
)

__all__ = ["look"]

N = TypeVar("N")

_LOOK_S: Final = 60.0
"""For one kind of need; a thousand files take some 10 ms."""


async def look(needs: Sequence[Need], context: CheckContext) -> tuple[Finding, ...]:
    """What this host lacks of the needs, and one ok for each check that lacks nothing.

    Ordered by check as the catalogue is.  Fits one message: of one check at most 16 findings are
    told, and the rest counted.  Raises nothing: what cannot be looked at is a finding too.
    """
    found: list[Finding] = []

    async def one(check: str, kind: type[N], work: Callable[[list[N]], list[Finding]]) -> None:
        if some := _only(needs, kind):
            found.extend(await _safely(check, _in_thread(work, some)))

    await one("files", FileNeed, lambda some: files.look(some, context))
    await one("pids", PidsNeed, lambda some: pids.look(some, context))
    await one("listen", AddressNeed, lambda some: addresses.look(some, context))
    await one("space", ImagesNeed, lambda some: space.look(some, context))
    await one("cgroup", CgroupNeed, lambda some: cgroup.look(some, context))
    await one("lsm", LsmNeed, lambda some: lsm.look(some, context))
    await one("namespaces", NamespaceNeed, lambda some: namespaces.look(some, context))
    await one("tools", ToolNeed, lambda some: tools.look(some, context))
    memories, images = _only(needs, MemoryNeed), _only(needs, ImagesNeed)
    if memories or images:
        work = _in_thread(lambda some: _memory(some, images, context), memories)
        found.extend(await _safely("memory", work))
    if cpus := _only(needs, CpuNeed):
        found.extend(await _safely("cpu", cpu.look(cpus, context)))
    return merged(found, tuple(CHECKS))


def _only(needs: Sequence[Need], kind: type[N]) -> list[N]:
    return [need for need in needs if isinstance(need, kind)]


def _memory(
    needs: Sequence[MemoryNeed], images: Sequence[ImagesNeed], context: CheckContext
) -> list[Finding]:
    size = sum(need.size for need in images) if images and space.in_memory(context) else 0
    return memory.look(needs, size, context) if needs or size else []


async def _in_thread(work: Callable[[list[N]], list[Finding]], needs: list[N]) -> list[Finding]:
    return await anyio.to_thread.run_sync(work, needs, abandon_on_cancel=True)


async def _safely(check: str, looking: Awaitable[list[Finding]]) -> list[Finding]:
    """What a check found, or that it could not look."""
    sheet = Sheet(check)
    try:
        with anyio.move_on_after(_LOOK_S):
            return await looking
        sheet.no(
            f"looking took over {_LOOK_S:g} s there",
            "see whether a file system of the network hangs there (`mount`)",
        )
    except PhaulError as error:
        sheet.no(f"it cannot be looked at there: {error.what}", error.remedy)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        sheet.no(f"it cannot be looked at there: {said}", "run the agent as root, with /proc")
    return sheet.found
