"""Watches where victims run: their counters are read from outside.  Runs in a guest.

    sentry.py PID:ADDRESS...

Prints a line of JSON a look: when it began and ended (CLOCK_REALTIME), and which of the PIDs have
counted since the look before.  A frozen one does not count, nor does one that is being restored:
what is read of it is nothing, and then the number it is to go on from.
"""

import json
import os
import struct
import sys
import time

PAUSE = 0.15


def count(pid: int, address: int) -> int:
    """The counter; 0 if there is none."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return 0
    try:
        data = os.pread(memory, 8, address)
    except OSError:
        return 0
    finally:
        os.close(memory)
    return int(struct.unpack("Q", data)[0]) if len(data) == 8 else 0


def main(*words: str) -> None:
    watched = [(int(pid), int(at)) for pid, at in (word.split(":") for word in words)]
    before: dict[int, int] = {}
    begun = time.time()
    while True:
        time.sleep(PAUSE)
        now = {pid: count(pid, at) for pid, at in watched}
        ended = time.time()
        runs = [pid for pid, value in now.items() if before.get(pid) and value > before[pid]]
        print(json.dumps({"from": begun, "to": ended, "runs": runs}), flush=True)
        before, begun = now, ended


if __name__ == "__main__":
    main(*sys.argv[1:])
