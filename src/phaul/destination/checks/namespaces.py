"""Namespaces that the restore has to make: does this kernel have them, and may the agent?

Used in preflight, on the destination; see namespaces(7).
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from phaul.criu.fitness import capabilities
from phaul.destination.checks.context import CheckContext
from phaul.destination.checks.sheet import Sheet, count
from phaul.protocol.preflight import Finding, NamespaceNeed

__all__ = ["look"]

_CONFIG: Final = {
    "pid": "CONFIG_PID_NS",
    "mnt": "CONFIG_NAMESPACES",
    "net": "CONFIG_NET_NS",
    "ipc": "CONFIG_IPC_NS",
    "uts": "CONFIG_UTS_NS",
    "user": "CONFIG_USER_NS",
    "cgroup": "CONFIG_CGROUPS",
    "time": "CONFIG_TIME_NS",
}


def look(needs: Sequence[NamespaceNeed], context: CheckContext) -> list[Finding]:
    """The findings of `namespaces`.  Raises OSError."""
    sheet = Sheet("namespaces")
    kinds = dict.fromkeys(kind for need in needs for kind in need.kinds)
    for kind in kinds:
        if not (context.proc / "self/ns" / kind).exists():
            sheet.no(f"that kernel has no {kind} namespaces", f"boot a kernel with {_CONFIG[kind]}")
            continue
        limit = context.proc / f"sys/user/max_{kind}_namespaces"
        with suppress(OSError, ValueError):
            if int(limit.read_text()) == 0:
                sheet.no(
                    f"no {kind} namespace may be made there",
                    f"there: `sysctl -w user.max_{kind}_namespaces=1024`",
                )
    if set(kinds) - {"user"} and "CAP_SYS_ADMIN" not in capabilities(context.proc):
        sheet.no(
            "the agent may make no namespace there: it lacks CAP_SYS_ADMIN",
            "run the agent as root, outside of a container",
        )
    if not sheet.found:
        what = f"{count(len(kinds), 'namespace')} can be made"
        sheet.ok(f"{what}: {', '.join(kinds)}")
    return sheet.found
