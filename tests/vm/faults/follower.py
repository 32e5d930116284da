"""Runs `phaul migrate`, and stops it (SIGSTOP) at an event.  Runs in a guest, on the source.

    follower.py EVENT ROUND PID WORD...      EVENT - for none, ROUND - where the event has none

With `decided` for an event it stops by itself there, see decided.py.  At `cutover-started` it waits
until CRIU has taken hold of the process with that PID.

Prints lines of JSON: the PID of phaul; each event as it comes; that phaul was stopped; at its end
the exit status, and what was said.  It is never ended together with phaul.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHON = [sys.executable, "-S", "-P"]
PHAUL = [*PYTHON, "-m", "phaul", "migrate"]
DECIDED = [*PYTHON, str(Path(__file__).with_name("decided.py"))]
LIMIT = 60.0


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(wanted: str, number: str, *words: str) -> None:
    source, theirs = os.pipe()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        phaul = subprocess.Popen(
            [*(DECIDED if wanted == "decided" else PHAUL), *words, "--events", f"jsonl:{theirs}"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)
        tell(pid=phaul.pid)
        tag = f'"event":"{wanted}"'.encode()
        with open(source, "rb", buffering=0) as events:  # noqa: PTH123 (a descriptor)
            rest = b""
            while data := events.read(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    # Stopped first, read after: an emulated machine takes a while for JSON.
                    if tag in line and (number == "-" or of_round(line) == int(number)):
                        if wanted == "cutover-started":
                            until_traced(words[0])
                        phaul.send_signal(signal.SIGSTOP)
                        tell(stopped=wanted)
                        tag = b"\n"
                    tell(event=json.loads(line)["event"])
        status = phaul.wait()
        stdout.seek(0)
        stderr.seek(0)
        tell(status=status, stdout=stdout.read().decode(), stderr=stderr.read().decode())


def until_traced(pid: str) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text():
            return


def of_round(line: bytes) -> int:
    event = json.loads(line)["event"]
    found: int = event.get("number", event.get("round", {}).get("number"))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
