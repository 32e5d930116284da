"""A migration that was torn apart: what `list` says of it, and what `resolve` makes of it."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hosts.command import Command
from tests.hosts.machine import AGENT_DIRECTORY, Hosts
from tests.hosts.subject import StartSubject, Subject

PATIENCE = 20.0


def switches(pid: int) -> list[str]:
    """How often each of its threads has been given a processor."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    texts = [(task / "status").read_text() for task in tasks]
    return [line for text in texts for line in text.splitlines() if "ctxt_switches" in line]


def wait_for_lock(subject: Subject) -> None:
    """It is held by more than CRIU: the lock is taken beside the copying of the images."""
    until = time.monotonic() + PATIENCE
    while ".lock" not in Path(f"/proc/{subject.pid}/cgroup").read_text():
        assert time.monotonic() < until, "nothing locks it"
        time.sleep(0.001)


def stands_still(subject: Subject) -> None:
    """It does not run on here, though nothing traces it any more."""
    until = time.monotonic() + PATIENCE
    while "TracerPid:\t0\n" not in Path(f"/proc/{subject.pid}/status").read_text():
        assert time.monotonic() < until, "something still traces it"
        time.sleep(0.02)
    time.sleep(0.1)  # from the one stop into the other
    before = switches(subject.pid)
    time.sleep(0.3)
    assert switches(subject.pid) == before


@pytest.mark.parametrize("event", ["started", "cutover-started", "held"])
def test_a_dead_phaul_before_the_decision(
    hosts: Hosts, phaul: Command, victim: StartSubject, event: str
) -> None:
    """The process is here: by itself before it was locked, by `resolve` after."""
    for host in hosts.both:
        host.remember()
    subject = victim("dirtier", "--size-mb", 8)
    running = phaul.follow("migrate", subject.pid, "root@host2")
    assert running.until(event), running.end()
    if event == "held":
        wait_for_lock(subject)
    running.signal(signal.SIGKILL)
    running.end()
    if event == "held":
        stands_still(subject)
    entries = json.loads(phaul("list", "--json").stdout)["migrations"]
    looked = phaul("resolve", "last")
    assert entries[0]["state"] == ("unknown" if event == "held" else "failed"), looked
    if event == "held":
        assert looked.status == 8, looked
        assert "let it run on here" in looked.stdout, looked
        stands_still(subject)
        done = phaul("resolve", "last", "--yes")
        assert done.status == 7, done
        assert f"still running here, PID {subject.pid}" in done.stdout, done
    subject.only_on(hosts.source, hosts.destination)
    assert hosts.destination.leftovers() == []


def test_a_dead_phaul_after_the_kill(hosts: Hosts, phaul: Command, victim: StartSubject) -> None:
    """The copy is held, and released by `resolve`; by nothing else."""
    for host in hosts.both:
        host.remember()
    subject = victim("dirtier", "--size-mb", 8)
    running = phaul.follow("migrate", subject.pid, "root@host2")
    assert running.until("held"), running.end()
    assert running.until("source-gone"), running.end()
    running.signal(signal.SIGKILL)
    running.end()
    done = phaul("resolve", "last", "--yes")
    assert done.status == 0, done
    subject.only_on(hosts.destination, hosts.source)
    assert phaul("resolve", "last").status == 0
    assert hosts.destination.leftovers(but={subject.pid}) == []
    assert list(hosts.destination.path(AGENT_DIRECTORY).iterdir()) == []


def test_a_dead_destination(hosts: Hosts, phaul: Command, victim: StartSubject) -> None:
    """All of phaul and of CRIU over there is killed: the copy is restored again."""
    subject = victim("dirtier", "--size-mb", 8)
    for host in hosts.both:
        host.remember()
    before = set(hosts.destination.processes())
    running = phaul.follow("migrate", subject.pid, "root@host2")
    assert running.until("source-gone"), running.end()
    running.signal(signal.SIGKILL)
    for pid, (outer, _name) in hosts.destination.processes().items():
        if pid not in before and pid != subject.pid:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(outer, signal.SIGKILL)
    running.end()
    done = phaul("resolve", "last", "--yes")
    assert done.status == 0, done
    subject.only_on(hosts.destination, hosts.source)
    assert hosts.destination.leftovers(but={subject.pid}) == []


def test_a_lost_link(hosts: Hosts, phaul: Command, victim: StartSubject) -> None:
    """The connection is lost after the kill, and comes back: the migration ends well by itself."""
    subject = victim("dirtier", "--size-mb", 8)
    for host in hosts.both:
        host.remember()
    before = set(hosts.source.processes())
    running = phaul.follow("migrate", subject.pid, "root@host2")
    assert running.until("held"), running.end()
    for pid, (outer, name) in hosts.source.processes().items():
        if pid not in before and name.startswith("ssh"):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(outer, signal.SIGKILL)
    outcome = running.end()
    if outcome.status in (0, 1):
        subject.only_on(hosts.destination, hosts.source)
        assert hosts.destination.leftovers(but={subject.pid}) == []
    else:
        assert outcome.status == 7
        subject.only_on(hosts.source, hosts.destination)
        assert hosts.destination.leftovers() == []
