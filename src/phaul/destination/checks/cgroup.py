"""The tree's cgroups: are they here?

Used in preflight, on the destination.  One that is missing is made by CRIU with the limits that it
had (manage-cgroups `soft`, its default in 4.2); one that is there is used as it is.  A hierarchy
that is missing is made by nobody.
"""

from collections.abc import Sequence

from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.mounts import Mount, read_mounts
from phaul.destination.checks.sheet import Sheet, count, printable
from phaul.protocol.preflight import CgroupNeed, Finding

__all__ = ["look"]


def look(needs: Sequence[CgroupNeed], context: CheckContext) -> list[Finding]:
    """The findings of `cgroup`.  Raises OSError."""
    sheet = Sheet("cgroup")
    mounts = read_mounts(context.proc)
    for need in dict.fromkeys(needs):
        name = printable(need.path)
        hierarchy = _hierarchy(need)
        mount = _mount(need.controllers, mounts)
        if mount is None:
            sheet.no(
                f"{hierarchy} is not mounted there, the tree is in its {name}",
                "mount it there as it is on the source; both hosts need the same cgroup version",
            )
        elif not (context.path(mount.point) / need.path.lstrip("/")).is_dir():
            sheet.warn(
                f"{name} is not there: CRIU will make it in {hierarchy}, and systemd not know it",
                "make it there before, or start there what it belongs to",
            )
        else:
            sheet.right += 1
    if sheet.right:
        sheet.ok(f"{count(sheet.right, 'cgroup')} {'is' if sheet.right == 1 else 'are'} there")
    return sheet.found


def _hierarchy(need: CgroupNeed) -> str:
    if not need.controllers:
        return "the cgroup hierarchy of version 2"
    return f"the cgroup hierarchy {printable(need.controllers)} of version 1"


def _mount(controllers: str, mounts: Sequence[Mount]) -> Mount | None:
    """Where a hierarchy is mounted whole, or as this cgroup namespace shows it."""
    for mount in mounts:
        if controllers:
            found = mount.kind == "cgroup" and set(controllers.split(",")) <= mount.options
        else:
            found = mount.kind == "cgroup2"
        if found and mount.root == "/":
            return mount
    return None
