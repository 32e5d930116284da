"""Victims in the guests, and what a migration may have left there.  Runs on the host."""

import json
import time
from dataclasses import dataclass
from typing import Any

from lab import Guest
from tools.guests import PROJECT

VICTIMS = f"{PROJECT}/victims"
FIRST_PID = 5000
"""Victims' PIDs: far from what a guest starts by itself, so that they are free on the other."""
PATIENCE_S = 15.0
"""sshd takes a moment to see that a connection has ended."""

_PARTS = (
    "ps -eo pid,args --no-headers",
    "find /var/lib/phaul/incoming -mindepth 1 2>/dev/null; "
    "find /var/lib/phaul /root/images -name '*.img' 2>/dev/null; "
    "ls -d /run/phaul-ssh-* /tmp/phaul-* 2>/dev/null",
    "nft list tables",
)
_STATE = "; echo ---; ".join(_PARTS) + "; true"


@dataclass(frozen=True)
class State:
    """What runs and lies on a guest."""

    processes: dict[int, str]
    files: tuple[str, ...]
    tables: tuple[str, ...]

    @classmethod
    def of(cls, guest: Guest) -> "State":
        """As it is now, by one command."""
        processes, files, tables = guest.sh(_STATE).split("---\n")
        rows = (line.split(None, 1) for line in processes.splitlines())
        found = {int(pid): args for pid, args in rows}
        return cls(found, tuple(files.splitlines()), tuple(tables.splitlines()))

    @property
    def victims(self) -> dict[int, str]:
        """The processes of tests/victims."""
        return {pid: args for pid, args in self.processes.items() if f"{VICTIMS}/" in args}

    @property
    def left(self) -> list[str]:
        """What is of a migration."""
        ours = [f"{pid} {args}" for pid, args in self.processes.items() if _is_ours(args)]
        return [*ours, *self.files, *self.tables]


def _is_ours(args: str) -> bool:
    words = args.split()
    if f"{VICTIMS}/" in args or "serve" in words:
        return False
    program = words[0].rpartition("/")[2]
    # What the listener starts calls itself sshd-session, sshd-auth, or `sshd: root@notty`.
    of_sshd = program.startswith("sshd-") or words[:2] == ["sshd:", "root@notty"]
    return program in {"criu", "ssh", "phaul"} or of_sshd or "-m phaul" in args


def left_behind(guest: Guest) -> list[str]:
    """Processes, images, files and network locks that stay on a guest; empty if there are none."""
    until = time.monotonic() + PATIENCE_S
    while (left := State.of(guest).left) and time.monotonic() < until:
        time.sleep(0.2)
    return left


class Subject:
    """A victim that was started in a guest."""

    def __init__(
        self, guest: Guest, name: str, *options: object, pid: int = FIRST_PID, report: str = ""
    ) -> None:
        self.name = name
        self.report = f"/root/{report or name}.json"
        words = " ".join(str(word) for word in options)
        # `exec`: the victim's background process is then the first to get a PID after this line.
        started = guest.sh(
            f"echo {pid - 1} >/proc/sys/kernel/ns_last_pid; "
            f"exec {VICTIMS}/{name} {words} --report {self.report}",
            timeout=120,
        )
        self.pid = int(started)

    def check(self, guest: Guest) -> dict[str, Any]:
        """Have it check itself on the guest where it is; its report, which must be good."""
        report = self._harness(guest, "check", self.report)
        assert report.get("ok"), report
        return report

    def counts_on(self, guest: Guest) -> dict[str, Any]:
        """Two checks, the second of which must have counted on; the first, which saw the gap."""
        first = self.check(guest)
        assert self.check(guest)["counter"] > first["counter"]
        return first

    def only_on(self, there: Guest, other: Guest) -> None:
        """Exactly one copy, and nothing of the migration on either guest."""
        left = {guest.name: left_behind(guest) for guest in (there, other)}
        assert not any(left.values()), left
        there_now, other_now = State.of(there).victims, State.of(other).victims
        assert other_now == {}, other_now
        assert self.pid in there_now, there_now

    def stop(self, *guests: Guest) -> None:
        """End it, wherever it is of these."""
        for guest in guests:
            self._harness(guest, "stop")

    def _harness(self, guest: Guest, verb: str, *words: str) -> dict[str, Any]:
        harness = ["python3", "-I", "-S", f"{VICTIMS}/harness.py"]
        result = guest.run([*harness, verb, str(self.pid), *words], timeout=120)
        assert result.stdout, result.stderr.decode()
        found: dict[str, Any] = json.loads(result.stdout)
        return found
