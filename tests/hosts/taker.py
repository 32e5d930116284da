"""Takes a PID on the host where it runs: `taker.py PID process|session`.

As a session, its leader has ended: the number shows nowhere in /proc but as the session and the
process group of another process, and yet it is not free.
"""

import os
import signal
import sys
from pathlib import Path

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def be_idle() -> None:
    """Run until a signal, without a file of the starter's."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    signal.pause()


def main() -> None:
    """Take it, and leave the counter of PIDs as it was."""
    wanted, how = int(sys.argv[1]), sys.argv[2]
    before = LAST_PID.read_text()
    LAST_PID.write_text(str(wanted - 1))
    pid = os.fork()
    if pid == 0:
        LAST_PID.write_text(before)
        os.setsid()
        if how == "session" and os.fork():
            os._exit(0)
        be_idle()
    if how == "session":
        os.waitpid(pid, 0)
    if pid != wanted:
        raise SystemExit(f"PID {wanted} is taken already: got {pid}")


if __name__ == "__main__":
    main()
