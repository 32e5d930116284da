"""A process that is slowed down on a guest, and what is to be as before after it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lab import Guest
from lab.command import Command as Spawned
from tests.vm.conftest import PHAUL
from tests.vm.subject import Subject

__all__ = ["DIRTIER", "TARGET", "WISHES", "groups", "until_slowed"]

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


@contextmanager
def until_slowed(guest: Guest, subject: Subject) -> Iterator[tuple[Spawned, str]]:
    """Migrate it, until it is slowed down; phaul, which is killed at last, and the ID."""
    words = [PHAUL, "migrate", str(subject.pid), TARGET, "--events", "jsonl", *WISHES]
    with guest.spawn([*words, "--max-downtime", "2s"]) as running:
        name = ""
        for line in running.stdout.lines(timeout=120):
            event = json.loads(line)["event"]
            name = name or event["id"]
            if event["event"] == "slowed-down":
                break
        else:
            raise AssertionError(running.stderr.read())
        yield running, name
