"""`python -m phaul.keeper FD DIRECTORY CRIU...`: what an agent starts for lazily restored memory.

FD is its end of the pair of sockets to the agent, DIRECTORY the migration's own.  It leaves the
agent's session and is nobody's child: what was started ends at once.  See `destination.keeper`,
and `destination.warden` for the second process.
Runs on the destination.
"""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Be the keeper, or its warden, in a child; returns the exit status of this process."""
    descriptor, directory, *program = arguments
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # CRIU's daemon inherits it
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")

    from phaul.destination.warden import Warden, be_warden

    control = socket.socket(fileno=int(descriptor))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        control.close()
        ours.close()
        be_warden(theirs, Path(directory))
        return 0
    theirs.close()

    from phaul.destination.keeper import run_keeper

    return run_keeper(control, Path(directory), program, Warden(ours))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Python's own end takes some ms in which the agent waits; there is nothing to be written.
    os._exit(status)
