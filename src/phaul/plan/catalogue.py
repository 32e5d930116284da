"""The checks of the preflight: their ids, what each is about, and what a `no` of it means.

Used in preflight, on both hosts, and for the documentation.  Pure.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CHECKS", "Check"]

_REFUSED: Final = 3
_INCOMPATIBLE: Final = 5


@dataclass(frozen=True)
class Check:
    """One check: `--allow id` makes its `no` a warning; else the command ends with the code."""

    id: str
    about: str
    exit_code: int = _REFUSED


CHECKS: Final[dict[str, Check]] = {
    check.id: check
    for check in (
        Check(
            "criu", "CRIU's version and its own check of the kernel, on both hosts", _INCOMPATIBLE
        ),
        Check("page-server", "both CRIUs speak the same page server protocol", _INCOMPATIBLE),
        Check("features", "dirty memory can be tracked, memory can be restored lazily"),
        Check("privileges", "root, or the capabilities that CRIU needs"),
        Check("cpu", "the destination's CPU can do what the source's can", _INCOMPATIBLE),
        Check("kernel", "the destination's kernel is not an older one"),
        Check("clock", "both clocks agree"),
        Check("files", "each mapped and open file is there, with the same size and build-id"),
        Check("directories", "working directory and root are there"),
        Check("unlinked", "unlinked files that are open fit the ghost limit"),
        Check("locks", "file locks"),
        Check("devices", "device files can be restored"),
        Check("terminal", "a terminal or a session from outside the tree"),
        Check("pids", "PIDs, sessions and process groups of the tree are free there"),
        Check("tcp", "established TCP connections, and whether their address is there"),
        Check("listen", "addresses that are listened on are there and free"),
        Check("unix", "unix sockets to outside the tree"),
        Check("sockets", "netlink, packet, raw and other sockets that cannot be dumped"),
        Check("inotify", "inotify and fanotify watches can be found again"),
        Check("descriptors", "io_uring, userfaultfd, perf, bpf, KVM and what else has no image"),
        Check("memory", "the destination has the memory, and the huge pages"),
        Check("locked", "locked memory, which is never restored lazily"),
        Check("space", "space for the images"),
        Check("cgroup", "the tree's cgroups are there"),
        Check(
            "second-lock", "the tree can be held by a frozen cgroup, if CRIU dies in the cutover"
        ),
        Check("throttle", "the tree can be slowed down, if that was asked for"),
        Check("post-copy", "memory can follow when the process runs there, if that was asked for"),
        Check("lsm", "security profiles are known there"),
        Check("namespaces", "namespaces that have to be made again"),
        Check("tools", "programs that CRIU starts"),
        Check("thp", "transparent huge pages: one written byte is 2 MiB to be sent again"),
        Check("split-huge-pages", "huge pages can be split, if that was asked for"),
        Check("dirty-rate", "how fast the tree changes its memory"),
    )
}
"""By id, in the order in which they are shown."""
