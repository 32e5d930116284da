"""The end of a restored tree that never ran, found from its root.

Runs on the destination, where CRIU did not end it and no cgroup of its own holds it: CRIU may move
what it restores into the very group that the agent is in.
"""

import signal
from typing import Final

import anyio

from phaul.incarnation import Incarnation, living
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids

__all__ = ["end_tree", "ended"]

_KILL_S: Final = 10.0


async def end_tree(root: Incarnation | None) -> bool:
    """Kill all below `root`, and it; returns whether it is gone."""
    if root is None or not root.alive():
        return True
    for one in reversed(living(tree_pids(root.pid, Proc()))):
        one.signal(signal.SIGKILL)
    return await ended(root, _KILL_S)


async def ended(process: Incarnation, within: float) -> bool:
    """Whether a process has ended, waited for `within` so many seconds at most."""
    with anyio.move_on_after(within):
        while process.alive():
            await anyio.sleep(0.01)
        return True
    return not process.alive()
