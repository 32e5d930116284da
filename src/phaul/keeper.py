"""`python -m phaul.keeper FD DIRECTORY CRIU...`: what an agent starts for lazily restored memory.

FD is its end of the pair of sockets to the agent, DIRECTORY the migration's own.  It leaves the
agent's session and is nobody's child: what was started ends at once.  See `destination.keeper`.
Runs on the destination.
"""

import os
import socket
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Be the keeper, in a child; returns the exit status of what was started."""
    descriptor, directory, *program = arguments
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    os.umask(0o077)

    from pathlib import Path

    from phaul.destination.keeper import run_keeper

    return run_keeper(socket.socket(fileno=int(descriptor)), Path(directory), program)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Python's own end takes some ms in which the agent waits; there is nothing to be written.
    os._exit(status)
