#!/usr/bin/env python3
"""Start, ask and stop victims on the machine where they run.

As a module: `start()`, `Victim`.  As a command, for use inside a guest, each prints JSON:

    harness.py start [--timeout S] -- ARGV...      {"pid": 7, "start_time": 1234}
    harness.py check PID REPORT [--timeout S]      the report; exit 1 when it is not ok
    harness.py alive PID                           {"alive": true}; exit 1 when it is not
    harness.py stop PID [--timeout S]              {"stopped": true, "status": 0}

`--start-time` of check, alive and stop guards against another process that got the same PID.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAUSE = 0.005


class VictimError(Exception):
    """A victim did not start, is gone, is not the process it was, or did not answer."""


@dataclass(frozen=True)
class Report:
    """What a victim wrote; the members special to its kind are in `data`."""

    victim: str
    pid: int
    ok: bool
    problems: list[str]
    problem_count: int
    counter: int
    max_gap_ms: float
    gaps: list[dict[str, float]]
    rt_ns: int
    data: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Report":
        """Read a report; ValueError or KeyError when it is not one."""
        data = json.loads(text)
        names = [n for n in cls.__dataclass_fields__ if n != "data"]
        return cls(**{n: data[n] for n in names}, data=data)


def start(argv: Sequence[str | Path], timeout: float = 30) -> int:
    """Start a victim in the background; its PID once it is ready.

    Raises VictimError, with what the victim said, when it does not become ready.
    """
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise VictimError(f"{argv[0]}: not ready after {timeout} s") from e
    if done.returncode:
        raise VictimError(f"{argv[0]}: exit {done.returncode}: {done.stderr.strip()}")
    return int(done.stdout)


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time of a process, or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


@dataclass
class Victim:
    """A running victim.

    The start time is taken here, when it is attached to: a restored process has another one, so
    attach anew after a restore.
    """

    pid: int
    report_path: Path
    start_time: int | None = None
    status: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Take note of the start time; VictimError when the process is gone already."""
        if self.start_time is None:
            found = _stat(self.pid)
            if found is None:
                raise VictimError(f"no process {self.pid}")
            self.start_time = found[1]

    def _reap(self) -> None:
        """Wait for it if it is a child of this process: one of init's is init's to reap."""
        if self.status is not None:
            return
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            self.status = os.waitstatus_to_exitcode(status)

    def alive(self) -> bool:
        """Whether it runs: neither gone nor a zombie, nor another process with its PID."""
        found = _stat(self.pid)
        if found is not None and found[0] not in "ZX" and found[1] == self.start_time:
            return True
        self._reap()
        return False

    def kill(self, signal_number: int) -> None:
        """Send it a signal; VictimError when it is gone."""
        if not self.alive():
            raise VictimError(f"process {self.pid} is gone, status {self.status}")
        os.kill(self.pid, signal_number)

    def check(self, timeout: float = 30) -> Report:
        """Have it check itself; its report, which may say that it is not ok.

        Raises VictimError when it dies or does not answer in time.
        """
        self.report_path.unlink(missing_ok=True)
        self.kill(signal.SIGUSR1)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.report_path.exists():
                return Report.parse(self.report_path.read_text())
            if not self.alive():
                raise VictimError(f"process {self.pid} died in its check, status {self.status}")
            time.sleep(PAUSE)
        raise VictimError(f"process {self.pid} gave no report in {timeout} s")

    def terminate(self, timeout: float = 30) -> int | None:
        """End it: SIGTERM, and SIGKILL after the timeout.  Its exit status if it is our child."""
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)
            if not self._gone(timeout):
                os.kill(self.pid, signal.SIGKILL)
                self._gone(timeout)
                raise VictimError(f"process {self.pid} did not heed SIGTERM, and was killed")
        return self.status

    def _gone(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > until:
                return False
            time.sleep(PAUSE)
        return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="start, ask and stop victims")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("start", "check", "alive", "stop"):
        command = commands.add_parser(name)
        command.add_argument("--timeout", type=float, default=30)
        if name == "start":
            command.add_argument("argv", nargs="+")
            continue
        command.add_argument("pid", type=int)
        command.add_argument("--start-time", type=int)
        if name == "check":
            command.add_argument("report", type=Path)
    return parser


def _run(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    if args.command == "start":
        victim = Victim(start(args.argv, args.timeout), Path())
        return {"pid": victim.pid, "start_time": victim.start_time}, True
    if args.command == "alive" and _stat(args.pid) is None:
        return {"alive": False}, False
    victim = Victim(args.pid, getattr(args, "report", Path()), args.start_time)
    if args.command == "check":
        report = victim.check(args.timeout)
        return report.data, report.ok
    if args.command == "alive":
        alive = victim.alive()
        return {"alive": alive}, alive
    return {"stopped": True, "status": victim.terminate(args.timeout)}, True


def main() -> int:
    """Run one command, print its result as JSON."""
    try:
        result, ok = _run(_parser().parse_args())
    except VictimError as e:
        result, ok = {"error": str(e)}, False
    print(json.dumps(result))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
