"""The second lock: the tree stands still in frozen cgroups, whatever becomes of phaul and of CRIU.

Taken in the cutover, on the source, while CRIU holds the tree in `post-dump`.  CRIU's own hold is
ptrace's: it ends with CRIU, and CRIU ends with phaul.  A frozen group lasts until somebody thaws
it, and what is in it can be killed at once.

    available --> plan --> (journal) --> take --+--> give_back           it runs on here
                                                +--> send_kill --> kill  it is gone; removes them
"""

import os
import threading
from collections.abc import Iterable
from typing import Final

from phaul.cgroups import Cgroups, LockedGroup
from phaul.errors import CgroupError, LockUnavailable
from phaul.protocol.preflight import Finding, Level, Where
from phaul.subjects.apart import Apart

__all__ = ["TreeLock", "second_lock"]

_HOST: Final = "source"
_CHECK: Final = "second-lock"
_MEANS: Final = (
    "if phaul and CRIU die while the cutover kills the tree, what is left of it here may run on "
    "for a moment, beside a copy there, until `phaul resolve` settles it"
)
_MOST_TEXT: Final = 1000


class TreeLock(Apart):
    """The second lock on this host; `cgroups` is another hierarchy than this host's, for tests."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        super().__init__(".lock", freeze=True, host=_HOST, cgroups=cgroups)

    def available(self, pids: Iterable[int]) -> None:
        """Raise LockUnavailable, with the reason, if the tree could not be locked now.

        Nothing that stays is changed: a child of each group is made, and removed.
        """
        mine = f"try-{os.getpid()}-{threading.get_native_id()}"
        for each in self.plan(mine, pids):
            self._try(each)

    def _try(self, each: LockedGroup) -> None:
        cgroups = self.cgroups
        try:
            cgroups.make(each.group)
            try:
                kind, can_freeze = cgroups.kind(each.group), cgroups.can_freeze(each.group)
            finally:
                cgroups.remove(each.group)
        except CgroupError as error:
            raise LockUnavailable(error.what, host=_HOST) from error
        if kind != "domain":
            raise LockUnavailable(f"cgroup {each.home} is a threaded one", host=_HOST)
        if not can_freeze:
            what = "this kernel cannot freeze a cgroup of version 2"
            raise LockUnavailable(what, host=_HOST, remedy="boot Linux 5.2 or newer")


def second_lock(pids: Iterable[int], lock: TreeLock | None = None) -> Finding:
    """The finding of `second-lock` for a tree: whether it could be locked now.  Blocks."""
    try:
        (TreeLock() if lock is None else lock).available(pids)
    except LockUnavailable as error:
        return Finding(
            check=_CHECK,
            level=Level.WARNING,
            where=Where.SOURCE,
            what=f"no second lock, {error.what[:_MOST_TEXT]}: {_MEANS}",
            remedy=error.remedy or "run phaul where it may make a cgroup below the tree's",
        )
    what = "in the cutover the tree is held by a frozen cgroup too"
    return Finding(check=_CHECK, level=Level.OK, where=Where.SOURCE, what=what)
