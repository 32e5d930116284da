"""A stand-in for ssh: notes its arguments, then does what the file beside it says.

FAKE_SSH names a JSON file: `notes` is where the arguments go; `status` and `error` are how it ends,
without more; else it runs the command on this host, as sshd would, in a shell.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    plan = json.loads(Path(os.environ["FAKE_SSH"]).read_text())
    memory = "--memory" in sys.argv[-1]
    with Path(plan["notes"]).open("a") as notes:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        notes.write(json.dumps({"argv": sys.argv[1:], "shielded": ignored}) + "\n")
    if memory and "memory_error" in plan:
        sys.stderr.write(plan["memory_error"])
        sys.exit(255)
    if "status" in plan and not memory:
        sys.stderr.write(plan["error"])
        sys.stdout.write(plan.get("output", ""))
        sys.stdout.flush()
        if plan.get("hang"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.pause()
        if plan["status"] < 0:
            os.kill(os.getpid(), -plan["status"])
        sys.exit(plan["status"])
    os.execv("/bin/sh", ["sh", "-c", f"exec {sys.argv[-1]}"])


main()
