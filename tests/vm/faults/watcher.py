"""Stops the agent of a migration (SIGSTOP) as soon as it restores.  Runs in a guest, on the
destination.

    watcher.py ID

The agent writes READY beside the restore, before it is true: CRIU is at work then, or will be at
once, and the agent that is stopped hears nothing of it.  Prints the agent's PID.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

LIMIT = 120.0


def main(name: str) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        for path in Path("/var/lib/phaul/incoming").glob(f"{name}-*/journal.json"):
            text = path.read_bytes()
            if b'"state":"ready"' in text:
                pid = json.loads(text)["agent"]["pid"]
                os.kill(pid, signal.SIGSTOP)
                print(pid, flush=True)
                return
        time.sleep(0.005)
    raise SystemExit(f"{name} was not restored within {LIMIT:g} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
