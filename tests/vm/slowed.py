"""A process that is slowed down on a guest, and what is to be as before after it."""

import json
from typing import Final

from lab import Guest
from lab.command import Command as Spawned
from tests.vm.conftest import PHAUL, Command
from tests.vm.subject import Subject

__all__ = ["DIRTIER", "TARGET", "WISHES", "groups", "last", "until_slowed"]

TARGET: Final = "root@dst"
WISHES: Final = ("--bandwidth", "2M", "--on-timeout", "throttle", "--timeout", "5m")
DIRTIER: Final = ("--size-mb", 8, "--rate", 3000)
_LOOK: Final = (
    "cat /proc/{pid}/cgroup; cd /sys/fs/cgroup; cat cgroup.subtree_control; "
    "find . -mindepth 1 -type d | while read d; do "
    "echo $d $(cat $d/cpu.max 2>/dev/null) $(cat $d/cgroup.type) $(sort $d/cgroup.threads); done; "
    "ls /var/lib/phaul/migrations/*/owed.json 2>/dev/null; true"
)


def groups(guest: Guest, subject: Subject) -> str:
    """Which groups there are, what is in them and limits them; where the victim is."""
    return guest.sh(_LOOK.format(pid=subject.pid))


def until_slowed(guest: Guest, subject: Subject) -> Spawned:
    """Migrate it, until it is slowed down."""
    words = [PHAUL, "migrate", str(subject.pid), TARGET, "--events", "jsonl", *WISHES]
    running = guest.spawn([*words, "--max-downtime", "1s"])
    for line in running.stdout.lines(timeout=120):
        if json.loads(line)["event"]["event"] == "slowed-down":
            return running
    raise AssertionError(running.stderr.read())


def last(command: Command) -> str:
    """The newest migration's ID."""
    found: str = json.loads(command("list", "--json").stdout)["migrations"][0]["id"]
    return found
