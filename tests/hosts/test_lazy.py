"""A migration whose memory comes when the process runs there already."""

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
