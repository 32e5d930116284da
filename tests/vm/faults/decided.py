"""`phaul migrate`, which stops itself (SIGSTOP) when it has decided, before it kills the tree.

    decided.py WORD...

Runs in a guest, on the source.  What comes next is a write to a cgroup: nobody else has a part in
it that could be stopped.
"""

import os
import signal
import sys

from phaul.cli.main import main
from phaul.source.ownership import Ownership

kill = Ownership.kill


async def held(self: Ownership) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    await kill(self)


if __name__ == "__main__":
    Ownership.kill = held  # type: ignore[method-assign]
    sys.exit(main(["migrate", *sys.argv[1:]]))
