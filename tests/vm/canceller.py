"""Runs `phaul migrate` and cancels it at a chosen moment.  Runs in a guest, on the source.

    canceller.py EVENT ROUND WAY WORD...      ROUND is - where the event has none

WAY is INT (Ctrl-C: to the whole process group, as a terminal does it), TERM (to phaul alone), or
cancel: `phaul cancel ID`.  That command is started beforehand and held just before its main
function: an emulated machine needs seconds to load it, and the moment would be over.  Prints JSON:
exit status, what was said and the events of phaul, and the same of `phaul cancel`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

PHAUL = [sys.executable, "-S", "-P"]
LIMIT = 90.0
HELD = (
    "import sys, phaul.cli.main, phaul.cli.cancel; print('ready', flush=True); "
    "sys.exit(phaul.cli.main.main(['cancel', sys.stdin.readline().strip()]))"
)


class Held:
    """`phaul cancel`, which waits for the id."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [*PHAUL, "-c", HELD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.process.stdout.readline()

    def go(self, name: str) -> None:
        """Cancel migration `name`."""
        assert self.process.stdin
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """What it came to."""
        stdout, stderr = self.process.communicate(timeout=LIMIT)
        return {"status": self.process.returncode, "stdout": stdout, "stderr": stderr}


class Migrating:
    """`phaul migrate`, followed by its events."""

    def __init__(self, words: list[str]) -> None:
        self._source, theirs = os.pipe()
        self._rest = b""
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [*PHAUL, "-m", "phaul", "migrate", *words, "--events", f"jsonl:{theirs}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs,),
            text=True,
            process_group=0,
        )
        os.close(theirs)

    def until(self, name: str, number: int | None) -> bool:
        """Read events up to the wanted one; whether it came."""
        while event := self._next():
            round_number = event.get("number", event.get("round", {}).get("number"))
            if event["event"] == name and number in (None, round_number):
                return True
        return False

    def _next(self) -> dict[str, Any] | None:
        until = time.monotonic() + LIMIT
        while b"\n" not in self._rest:
            if not select.select([self._source], [], [], max(until - time.monotonic(), 0))[0]:
                raise SystemExit(f"no event for {LIMIT} s after {self.events[-1:]}")
            data = os.read(self._source, 65536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        event: dict[str, Any] = json.loads(line)["event"]
        self.events.append(event)
        return event

    def signal(self, way: str) -> None:
        """Cancel it by a signal."""
        if way == "INT":
            os.killpg(self.process.pid, signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> dict[str, Any]:
        """What it came to."""
        self.until("", None)
        stdout, stderr = self.process.communicate(timeout=LIMIT)
        found = {"status": self.process.returncode, "stdout": stdout, "stderr": stderr}
        return {**found, "events": self.events}


def main(event: str, number: str, way: str, *words: str) -> None:
    """Do it, and print what came of it."""
    held = Held() if way == "cancel" else None
    migrating = Migrating(list(words))
    try:
        came = migrating.until(event, None if number == "-" else int(number))
        if came and held:
            held.go(migrating.events[0]["id"])
        elif came:
            migrating.signal(way)
        found = migrating.end()
        found["came"] = came
        found["cancel"] = held.end() if held and came else None
    finally:
        for process in (migrating.process, held.process if held else None):
            if process and process.poll() is None:
                process.kill()
                process.wait()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
