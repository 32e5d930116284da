"""A migration whose memory comes when the process runs there already."""

import signal

import pytest

from tests.hosts.command import Command
from tests.hosts.machine import Hosts
from tests.hosts.subject import StartSubject

TARGET = "root@host2"

VICTIMS = [
    ("dirtier", ("--size-mb", "64", "--kinds", "private:2,shared")),
    ("tree", ("--dir", "/var/tmp/shared")),
    ("forker", ("--size-kb", "16384")),
    ("mapper", ("--empty-whole",)),
    ("pyheap.py", ()),
]


@pytest.mark.parametrize(("name", "options"), VICTIMS, ids=[name for name, _ in VICTIMS])
def test_it_is_whole_and_nothing_is_left(
    hosts: Hosts, victim: StartSubject, phaul: Command, name: str, options: tuple[str, ...]
) -> None:
    subject = victim(name, *options)
    counter = subject.whole(hosts.source).counter
    pids = subject.pids()
    for host in hosts.both:
        host.remember()
    outcome = phaul.migrate(subject, "--restore", "lazy", "--json")
    assert outcome.status == 0, outcome
    report = outcome.json["report"]
    assert report["lazy"]
    assert report["drained"]["pages"] > 0
    assert outcome.event("drained")["pages"] == report["drained"]["pages"]
    assert subject.only_on(hosts.destination, hosts.source).counter > counter
    if name != "forker":  # it has other children by now
        assert hosts.destination.leftovers(but=pids) == []
    assert hosts.source.leftovers() == []


def test_in_a_namespace(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("dirtier", "--size-mb", "64")
    subject.whole(hosts.source)
    hosts.source.remember()
    outcome = phaul.migrate(subject, "--restore", "lazy", "--json", target="local:")
    assert outcome.status == 0, outcome
    assert outcome.json["report"]["drained"]["pages"] > 0
    inside = hosts.destination  # by its PID, a namespace in the sandbox is as host2 is
    subject.whole(inside)
    subject.on(inside).kill(signal.SIGKILL)
    assert hosts.source.leftovers() == []


def test_full_is_full(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("dirtier", "--size-mb", "64")
    outcome = phaul.migrate(subject, "--restore", "full", "--json")
    assert outcome.status == 0, outcome
    assert not outcome.json["report"]["lazy"]
    assert outcome.json["report"]["drained"] is None
    subject.only_on(hosts.destination, hosts.source)


def test_a_keeper_that_dies_costs_only_the_gain(
    hosts: Hosts, victim: StartSubject, phaul: Command
) -> None:
    subject = victim("dirtier", "--size-mb", "64")
    for host in hosts.both:
        host.remember()
    running = phaul.follow(
        "migrate", subject.pid, TARGET, "--restore", "lazy", "--bandwidth", "40M"
    )
    assert running.until("cutover-started"), running.end()
    hosts.destination.run(["pkill", "-KILL", "-f", "phaul.keeper"], check=True)
    outcome = running.end()
    assert outcome.status == 0, outcome
    assert not outcome.event("finished")["report"]["lazy"]
    subject.only_on(hosts.destination, hosts.source)
    assert hosts.destination.leftovers(but={subject.pid}) == []
    assert hosts.source.leftovers() == []
