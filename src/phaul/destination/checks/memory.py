"""Memory for the tree: in the machine, in the agent's cgroups, and huge pages.

Used in preflight, on the destination.  The restored tree begins in the agent's cgroup, so that the
limits of it and of those above it count; see the kernel's admin-guide/cgroup-v2.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.mounts import read_mounts
from phaul.destination.checks.sheet import Sheet, count, octets, printable
from phaul.protocol.preflight import Finding, MemoryNeed

__all__ = ["look"]

_LIMIT: Final = 1 << 16
_TIGHT: Final = 10
"""Per cent of what is available that should be left."""


def look(needs: Sequence[MemoryNeed], images: int, context: CheckContext) -> list[Finding]:
    """The findings of `memory`; `images` are the bytes of images that lie in memory here.

    Raises OSError.
    """
    sheet = Sheet("memory")
    huge: dict[int, int] = {}
    for need in needs:
        if need.huge:
            huge[need.huge_page] = huge.get(need.huge_page, 0) + need.huge
    needed = images + sum(max(need.resident - need.huge, 0) for need in needs)
    what = f"{octets(needed)} of memory are needed"
    if images:
        what += f" ({octets(images)} for images, as the agent's directory lies in memory)"
    table = _table(context.proc / "meminfo", scale=1024)
    free = table.get("MemAvailable")
    if free is None:
        sheet.warn("how much memory is available there cannot be read", "look at `free` there")
    else:
        _compare(sheet, needed, what, free, table.get("SwapFree", 0))
    for name, left in _cgroups(context):
        if needed > left:
            sheet.no(
                f"{what}, the agent's cgroup {printable(name)} leaves {octets(left)}",
                "there: raise its memory.max, or start the agent in another cgroup",
            )
    for page, size in sorted(huge.items()):
        _huge_pages(sheet, size, page, table, context)
    if not sheet.found and free is not None:
        sheet.ok(f"{what}, {octets(free)} are available")
    return sheet.found


def _compare(sheet: Sheet, needed: int, what: str, free: int, swap: int) -> None:
    if needed > free + swap:
        sheet.no(f"{what}, {octets(free)} are available", "free memory there, or add some")
    elif needed > free:
        sheet.warn(
            f"{what}, {octets(free)} are available, the rest would be swapped out",
            "free memory there, or add some",
        )
    elif (free - needed) * 100 < free * _TIGHT:
        left = octets(free - needed)
        sheet.warn(f"{what}, of what is available only {left} are left", "free memory there")


def _table(path: Path, scale: int = 1) -> dict[str, int]:
    """A file of names and numbers, as /proc/meminfo and memory.stat are.  Raises OSError."""
    found = {}
    with path.open("rb") as file:
        for line in file.read(_LIMIT).decode(errors="replace").splitlines():
            words = line.replace(":", " ").split()
            if len(words) >= 2 and words[1].isdecimal():
                unit = scale if words[-1] == "kB" else 1
                found[words[0]] = int(words[1]) * unit
    return found


def _cgroups(context: CheckContext) -> Iterator[tuple[str, int]]:
    """The agent's cgroup of version 2 and those above that have a limit, and what it leaves."""
    path = ""
    with suppress(OSError):
        for line in (context.proc / "self/cgroup").read_text(errors="replace").splitlines():
            if line.startswith("0::/"):
                path = line[4:].strip("/")
    with suppress(OSError):
        point = next((m.point for m in read_mounts(context.proc) if m.kind == "cgroup2"), None)
        parts = [part for part in path.split("/") if part]
        if point is None or ".." in parts:
            return  # outside of what this cgroup namespace shows
        for depth in range(len(parts), 0, -1):
            name = "/".join(parts[:depth])
            folder = context.path(point) / name
            with suppress(OSError, ValueError):
                most = int((folder / "memory.max").read_text())  # "max" is no limit
                used = int((folder / "memory.current").read_text())
                # Pages of files that are not in use are given up first.
                used -= _table(folder / "memory.stat").get("inactive_file", 0)
                yield f"/{name}", max(most - max(used, 0), 0)


def _huge_pages(
    sheet: Sheet, size: int, page: int, table: dict[str, int], context: CheckContext
) -> None:
    page = page or table.get("Hugepagesize", 0) or 2 << 20
    folder = context.path(f"/sys/kernel/mm/hugepages/hugepages-{page // 1024}kB")
    needed = -(-size // page)
    try:
        free = _number(folder / "free_hugepages") - _number(folder / "resv_hugepages")
        more = _number(folder / "nr_overcommit_hugepages") - _number(folder / "surplus_hugepages")
    except (OSError, ValueError):
        sheet.no(
            f"that kernel has no huge pages of {octets(page)}, {needed} are needed",
            "boot a kernel that has them, or start the program without them",
        )
        return
    if needed > max(free, 0) + max(more, 0):
        sheet.no(
            f"{count(needed, 'huge page')} of {octets(page)} needed, {max(free, 0)} free there",
            f"there: raise {folder / 'nr_hugepages'}",
        )


def _number(path: Path) -> int:
    return int(path.read_text())
