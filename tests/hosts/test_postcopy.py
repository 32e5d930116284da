"""A migration whose memory is left on the source, and follows when the process runs."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.hosts.command import Command, Outcome, Running
from tests.hosts.machine import Host, Hosts
from tests.hosts.subject import StartSubject, Subject
from tests.pipes import LIMIT, large_pipes

VICTIMS = [
    ("dirtier", ("--size-mb", "64", "--kinds", "private:2,shared")),
    ("tree", ("--dir", "/var/tmp/shared")),
    ("forker", ("--size-kb", "16384")),
    ("mapper", ("--empty-whole",)),
    ("pyheap.py", ()),
]


@pytest.fixture(autouse=True)
def _pipes() -> Iterator[None]:
    """CRIU gets its pipes, also without CAP_SYS_RESOURCE."""
    with large_pipes():
        yield


@pytest.mark.parametrize(("name", "options"), VICTIMS, ids=[name for name, _ in VICTIMS])
def test_it_is_whole_and_nothing_is_left(
    hosts: Hosts, victim: StartSubject, phaul: Command, name: str, options: tuple[str, ...]
) -> None:
    subject = victim(name, *options)
    counter = subject.whole(hosts.source).counter
    pids = subject.pids()
    for host in hosts.both:
        host.remember()
    outcome = phaul.migrate(subject, "--post-copy", "--json")
    assert outcome.status == 0, outcome
    report = outcome.json["report"]
    assert report["way"] == "post-copy"
    followed = report["followed"]
    assert followed["pages"] > 0
    if name not in ("forker", "mapper"):
        assert followed["on_demand"] + followed["swept"] == followed["pages"]
    assert outcome.event("draining")["follows"]
    assert subject.only_on(hosts.destination, hosts.source).counter > counter
    if name != "forker":  # it has other children by now
        assert hosts.destination.leftovers(but=pids) == []
    assert hosts.source.leftovers() == []


SLOWLY = ("--post-copy", "--bandwidth", "8M", "--compress", "none")
"""64 MiB take 8 s then."""


def drains(
    hosts: Hosts, victim: StartSubject, phaul: Command, *options: str
) -> tuple[Subject, Running]:
    """A process that runs over there, while most of its memory is still here."""
    subject = victim("dirtier", "--size-mb", "64")
    subject.whole(hosts.source)
    for host in hosts.both:
        host.remember()
    running = phaul.follow("migrate", subject.pid, "root@host2", *SLOWLY, *options)
    assert running.until("draining"), running.end()
    return subject, running


def kill(host: Host, *words: str, most: int = 100) -> None:
    """Kill what of a host has these words in its command line."""
    found = [
        outer for outer, line in host.processes().values() if all(word in line for word in words)
    ]
    assert found, f"no {words} on {host.name}"
    for pid in sorted(found)[:most]:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)


def all_came(hosts: Hosts, subject: Subject, running: Running) -> Outcome:
    """It ends well, and nothing is left."""
    outcome = running.end()
    assert outcome.status in (0, 1), outcome  # 1: the goodbye was not heard
    assert outcome.event("finished")["report"]["followed"]["pages"] > 16_000
    subject.only_on(hosts.destination, hosts.source)
    assert hosts.destination.leftovers(but={subject.pid}) == []
    assert hosts.source.leftovers() == []
    return outcome


def is_lost(hosts: Hosts, subject: Subject, running: Running, phaul: Command) -> Outcome:
    """It is said that it is lost, it is nowhere, and nothing else is left."""
    outcome = running.end()
    assert outcome.status == 8, outcome
    outcome.says("lost")
    assert hosts.destination.leftovers() == []
    assert hosts.source.leftovers() == []
    (entry, *_) = json.loads(phaul("list", "--json").stdout)["migrations"]
    assert "lost" in entry["fate"], entry
    found = phaul("resolve", "last", "--yes")
    assert found.status == 8, found
    assert "lost" in found.stdout
    return outcome


def test_a_link_that_is_lost_and_comes_back(
    hosts: Hosts, victim: StartSubject, phaul: Command
) -> None:
    subject, running = drains(hosts, victim, phaul)
    kill(hosts.source, "ssh")
    all_came(hosts, subject, running)


def test_an_agent_that_dies(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject, running = drains(hosts, victim, phaul)
    kill(hosts.destination, "phaul", "agent")
    all_came(hosts, subject, running)


def test_a_source_s_criu_that_dies(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject, running = drains(hosts, victim, phaul)
    kill(hosts.source, "dump --rpc")  # as CRIU calls itself then
    is_lost(hosts, subject, running, phaul).says("pages", "start the process anew")


def test_a_keeper_that_dies(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject, running = drains(hosts, victim, phaul)
    kill(hosts.destination, "phaul.keeper", most=1)  # not its warden
    is_lost(hosts, subject, running, phaul)


def test_ctrl_c_is_too_late(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject, running = drains(hosts, victim, phaul)
    running.signal(signal.SIGINT)
    all_came(hosts, subject, running).says("its memory is still needed here")


def test_a_source_s_phaul_that_dies(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    _, running = drains(hosts, victim, phaul)
    running.signal(signal.SIGKILL)
    running.end()
    (entry, *_) = json.loads(phaul("list", "--json").stdout)["migrations"]
    assert entry["state"] == "unknown", entry
    found = phaul("resolve", "last")
    assert found.status == 8, found
    assert "of its memory were still here" in found.stdout
    done = phaul("resolve", "last", "--yes")
    assert done.status == 8, done
    assert "lost" in done.stdout
    assert hosts.destination.leftovers() == []


def test_it_is_refused_where_criu_could_not_hold_it(
    hosts: Hosts, victim: StartSubject, phaul: Command
) -> None:
    subject = victim("dirtier", "--size-mb", "8")
    LIMIT.write_text(str(1 << 20))
    words = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    outcome = phaul("migrate", subject.pid, "root@host2", "--post-copy", prefix=words)
    assert outcome.status == 3, outcome
    outcome.says("post-copy", "pipes of 4 MiB", "fs.pipe-max-size")
    subject.only_on(hosts.source, hosts.destination)


def test_in_a_namespace(hosts: Hosts, victim: StartSubject, phaul: Command) -> None:
    subject = victim("dirtier", "--size-mb", "64")
    subject.whole(hosts.source)
    hosts.source.remember()
    outcome = phaul.migrate(subject, "--post-copy", "--json", target="local:")
    assert outcome.status == 0, outcome
    assert outcome.json["report"]["followed"]["pages"] > 16_000
    inside = hosts.destination  # by its PID, a namespace in the sandbox is as host2 is
    subject.whole(inside)
    subject.on(inside).kill(signal.SIGKILL)
    assert hosts.source.leftovers() == []
