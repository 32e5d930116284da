"""The victims of the cases: started on host1, each with what a migration of it needs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from phaul.criu.lazydump import PIPE
from tests.faults.network import LISTEN, Service, cable
from tests.faults.plan import FaultPoint, Kind
from tests.hosts.machine import Host, Hosts
from tests.hosts.subject import FIRST_PID, VICTIMS, Subject
from tests.pipes import LIMIT
from tests.victims.harness import Report, Victim, VictimError, start

__all__ = ["FOLDER", "Sufferer", "furnish", "suffering"]

FOLDER: Final = Path("/var/tmp/faults")
"""On the storage that both hosts see."""
_OWN: Final = Path("/srv/lines")
"""What only host1 has."""
_TREE: Final = Path("/srv/tree")
"""Of each host's own: CRIU's restore replaces a socket's file, and so a rollback would lose it."""
_LEAVER: Final = Path(__file__).with_name("leaver.sh")

_WORDS: Final = {
    "piggie": ("piggie", "--interval-ms", "2", "--file", FOLDER / "lines", "--reopen"),
    "dirtier": ("dirtier", "--size-mb", "4", "--rate", "500"),
    "shared": (
        *("dirtier", "--size-mb", "4", "--rate", "500", "--kinds", "private,shared,file"),
        *("--file", FOLDER / "mapped"),
    ),
    "tcp": ("echo_server", "--beat-ms", "2", "--listen", LISTEN),
    "tree": ("tree", "--beat-ms", "2", "--dir", _TREE),
}


@dataclass
class Sufferer:
    """A victim on host1, or wherever it is moved to."""

    subject: Subject
    before: Report
    order: dict[str, Any]
    pids: set[int] = field(default_factory=set)
    service: Service | None = None

    @property
    def address(self) -> int:
        """Where its counter is."""
        return int(self.before.data["counter_at"])

    def whole(self, host: Host) -> list[str]:
        """What is wrong with it there, by its own account; it must count on."""
        try:
            report = self.subject.whole(host)
        except Exception as error:
            return [f"on {host.name} it is not whole: {error}"]
        if report.counter <= self.before.counter:
            return [f"it counts {report.counter}, before it was {self.before.counter}"]
        if self.service is not None:
            if host.depth > 1:
                self.service.move()
            try:
                self.service.require_counting()
            except VictimError as error:
                return [f"its client: {error}"]
        return []


def furnish(hosts: Hosts) -> None:
    """Make what a host has of its own and keeps."""
    cable(hosts)
    hosts.source.write(_OWN, b"")
    for host in hosts.both:
        host.path(_TREE).mkdir()


@contextmanager
def suffering(hosts: Hosts, fault: FaultPoint, number: int) -> Iterator[Sufferer]:
    """Start the victim of a fault, and end it at the end, wherever it is."""
    name = fault.victim
    words = [*map(str, _WORDS[name])]
    allow = []
    if fault.kind is Kind.MISSING:
        words = ["piggie", "--interval-ms", "2", "--file", str(_OWN)]
        allow = ["files"]
    report = FOLDER / f"report-{number}.json"
    FOLDER.mkdir(exist_ok=True)
    if fault.way:
        LIMIT.write_text(str(PIPE))
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(FIRST_PID + 40 * (number % 250)))
    pid = start([VICTIMS / words[0], *words[1:], "--report", report])
    subject = Subject(words[0], pid, report)
    criu = ["criu"]
    if Kind.EXIT in (fault.kind, fault.then.kind if fault.then else None):
        criu = ["bash", str(_LEAVER), "criu"]
    environment = {"CRIU_FAULT": str(fault.number)} if fault.kind is Kind.FAULT else {}
    order = {
        "pid": pid,
        "name": words[0],
        "compress": "auto" if name == "tree" else "none",
        "tcp": "keep" if name == "tcp" else "",
        "allow": allow,
        "post_copy": fault.way == "post-copy",
        "criu": criu,
        "environment": environment if fault.who == "source" else {},
        "agent": {"criu": criu, "environment": environment if fault.who == "agent" else {}},
    }
    try:
        with ExitStack() as stack:
            service = None
            if name == "tcp":
                service = stack.enter_context(Service.begin(hosts, FOLDER))
            before = Victim(pid, report).check()
            yield Sufferer(subject, before, order, subject.pids(), service)
    finally:
        for host in hosts.both:
            with suppress(AssertionError, OSError, ProcessLookupError):
                outer = host.outer_pid(pid)
                if outer is not None:
                    os.kill(outer, 9)
        for path in FOLDER.iterdir():
            if path.suffix != ".log":
                path.unlink(missing_ok=True)
