"""The command between two hosts: it moves, is cancelled, looks and tells, from a user's side."""

import re
import signal

import pytest

from tests.hosts.command import Command, Outcome
from tests.hosts.machine import Hosts
from tests.hosts.subject import StartSubject, Subject

TARGET = "root@host2"
SLOW = ("--bandwidth", "20M")
"""With it, a victim of 64 MiB is some seconds on its way: time to do something else meanwhile."""
BEFORE_THE_COMMIT = ("connecting", "connected", "checked", "planned", "started", "cutover-started")


@pytest.fixture
def large(victim: StartSubject) -> Subject:
    """A victim with some memory to be sent."""
    return victim("dirtier", "--size-mb", 64)


def has_moved(hosts: Hosts, subject: Subject, pids: set[int], counter: int) -> None:
    """It is there alone and whole, has counted on, and nothing else was left on either host."""
    assert subject.only_on(hosts.destination, hosts.source).counter > counter
    assert hosts.destination.leftovers(but=pids) == []
    assert hosts.source.leftovers() == []


def is_still_here(hosts: Hosts, subject: Subject, outcome: Outcome, status: int) -> None:
    """It was cancelled: the process is here alone and whole, and host2 is as it was."""
    assert outcome.status == status, outcome
    outcome.says("cancelled", f"still running here, PID {subject.pid}")
    if any(event["event"] == "connected" for event in outcome.events):
        outcome.says("nothing left on host2")
    subject.only_on(hosts.source, hosts.destination)
    assert hosts.destination.leftovers() == []
    assert hosts.source.leftovers() == []


def remember(hosts: Hosts) -> None:
    for host in hosts.both:
        host.remember()


# -- it moves


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("piggie", ("--file", "/var/tmp/shared/counted")),
        ("tree", ("--dir", "/var/tmp/shared")),
        ("dirtier", ("--size-mb", "64", "--kinds", "private:2,shared")),
        ("pyheap.py", ()),
    ],
)
def test_one_command_moves_it(
    hosts: Hosts, victim: StartSubject, phaul: Command, name: str, options: tuple[str, ...]
) -> None:
    subject = victim(name, *options)
    counter = subject.whole(hosts.source).counter
    pids = subject.pids()
    remember(hosts)
    outcome = phaul("migrate", subject.pid, TARGET, "--json")
    assert outcome.status == 0, outcome
    has_moved(hosts, subject, pids, counter)
    moved = outcome.json
    assert (moved["v"], moved["outcome"], moved["process"]) == (1, "moved", "destination")
    result = moved["report"]
    assert (result["pid"], result["destination_pid"]) == (subject.pid, subject.pid)
    assert result["way"] == "stop and copy"
    assert result["destination"] == "host2"
    assert result["final"]["pages"] > 0
    assert all(seconds >= 0 for seconds in result["downtime"].values())
    assert sum(result["downtime"].values()) > 0


def test_it_says_where_the_process_is_now(hosts: Hosts, large: Subject, phaul: Command) -> None:
    outcome = phaul("migrate", large.pid, TARGET)
    assert outcome.status == 0, outcome
    said = outcome.stdout + outcome.stderr
    assert re.search(rf"host2.*PID {large.pid}|PID {large.pid}.*host2", said), said
    assert re.search(r"downtime", said), said
    assert re.search(r"sent", said), said


def test_quiet_says_nothing(hosts: Hosts, large: Subject, phaul: Command) -> None:
    outcome = phaul("migrate", large.pid, TARGET, "-q")
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    large.only_on(hosts.destination, hosts.source)


def test_events_come_in_order(hosts: Hosts, large: Subject, phaul: Command) -> None:
    outcome = phaul.migrate(large)
    assert outcome.status == 0, outcome
    names = [event["event"] for event in outcome.events]
    must = [*BEFORE_THE_COMMIT, "held", "source-gone", "running", "finished"]
    assert [name for name in names if name in must] == must
    assert outcome.event("running")["pid"] == large.pid
    assert outcome.event("connected")["host"] == "host2"
    assert outcome.event("finished")["report"]["pid"] == large.pid


# -- it is looked at


def test_list_status_and_report_tell_of_it(hosts: Hosts, large: Subject, phaul: Command) -> None:
    moved = phaul.migrate(large, "--json")
    assert moved.status == 0, moved
    name = moved.event("connecting")["id"]
    listed = phaul("list")
    assert listed.status == 0, listed
    line = next(line for line in listed.stdout.splitlines() if name in line)
    assert str(large.pid) in line
    assert "host2" in line
    status = phaul("status", name)
    assert status.status == 0, status
    assert "done" in status.stdout, status
    report = phaul("report", name, "--json")
    assert report.status == 0, report
    assert report.json["pid"] == moved.json["report"]["pid"]
    assert report.json["downtime"] == moved.json["report"]["downtime"]
    as_text = phaul("report", name)
    assert as_text.status == 0, as_text
    assert "downtime" in as_text.stdout, as_text


def test_status_while_it_runs(hosts: Hosts, large: Subject, phaul: Command) -> None:
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    begun = running.until("cutover-started")
    assert begun, running.end()
    name = running.events[0]["id"]
    status = phaul("status", name)
    assert status.status == 0, status
    assert "cutover" in status.stdout, status
    assert running.end().status == 0
    large.only_on(hosts.destination, hosts.source)


# -- it is cancelled


@pytest.mark.parametrize("event", BEFORE_THE_COMMIT)
def test_ctrl_c_leaves_it_here(hosts: Hosts, large: Subject, phaul: Command, event: str) -> None:
    large.whole(hosts.source)
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    assert running.until(event), running.end()
    running.signal(signal.SIGINT)
    is_still_here(hosts, large, running.end(), 130)


@pytest.mark.parametrize("event", ["planned", "cutover-started"])
def test_sigterm_leaves_it_here(hosts: Hosts, large: Subject, phaul: Command, event: str) -> None:
    large.whole(hosts.source)
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    assert running.until(event), running.end()
    running.signal(signal.SIGTERM)
    is_still_here(hosts, large, running.end(), 143)


def test_impatience_tears_nothing(hosts: Hosts, large: Subject, phaul: Command) -> None:
    """Ctrl-C again and again while it is cancelling."""
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    assert running.until("cutover-started"), running.end()
    for _ in range(5):
        running.signal(signal.SIGINT)
    is_still_here(hosts, large, running.end(), 130)


def test_ctrl_c_when_all_is_dumped(hosts: Hosts, large: Subject, phaul: Command) -> None:
    """It is one or the other, and the exit status says which."""
    counter = large.whole(hosts.source).counter
    pids = large.pids()
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET)
    assert running.until("held"), running.end()
    running.signal(signal.SIGINT)
    outcome = running.end()
    if outcome.status == 130:
        is_still_here(hosts, large, outcome, 130)
    else:
        assert outcome.status == 0, outcome
        has_moved(hosts, large, pids, counter)


@pytest.mark.parametrize("event", ["source-gone", "running"])
def test_ctrl_c_after_the_commit_is_too_late(
    hosts: Hosts, large: Subject, phaul: Command, event: str
) -> None:
    counter = large.whole(hosts.source).counter
    pids = large.pids()
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET)
    assert running.until(event), running.end()
    running.signal(signal.SIGINT)
    outcome = running.end()
    assert outcome.status == 0, outcome
    has_moved(hosts, large, pids, counter)


@pytest.mark.parametrize("event", ["started", "cutover-started"])
def test_cancelled_from_another_terminal(
    hosts: Hosts, large: Subject, phaul: Command, event: str
) -> None:
    large.whole(hosts.source)
    remember(hosts)
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    assert running.until(event), running.end()
    done = phaul("cancel", running.events[0]["id"])
    is_still_here(hosts, large, running.end(), 130)
    assert done.status == 130, done  # where the process is, as for the migration itself
    assert "cancelled" in done.stdout, done
    assert "cancelled" in phaul("list").stdout


def test_nothing_to_cancel(hosts: Hosts, phaul: Command) -> None:
    outcome = phaul("cancel", "nonsense")
    assert outcome.status == 2, outcome
    outcome.says("nonsense")


def test_it_can_be_moved_after_a_cancel(hosts: Hosts, large: Subject, phaul: Command) -> None:
    running = phaul.follow("migrate", large.pid, TARGET, *SLOW)
    assert running.until("cutover-started"), running.end()
    running.signal(signal.SIGINT)
    assert running.end().status == 130
    assert phaul("migrate", large.pid, TARGET).status == 0
    large.only_on(hosts.destination, hosts.source)


# -- it only looks


def test_dry_run_freezes_nothing(hosts: Hosts, large: Subject, phaul: Command) -> None:
    large.whole(hosts.source)
    remember(hosts)
    outcome = phaul.migrate(large, "--dry-run")
    assert outcome.status in (0, 1), outcome
    assert "stop and copy" in outcome.stdout + outcome.stderr
    names = {event["event"] for event in outcome.events}
    assert names >= {"checked", "planned"}
    assert not names & {"started", "round-started", "cutover-started", "running"}
    large.only_on(hosts.source, hosts.destination)
    for host in hosts.both:
        assert host.leftovers() == []


def test_check_of_this_host(hosts: Hosts, phaul: Command) -> None:
    remember(hosts)
    outcome = phaul("check")
    assert outcome.status in (0, 1), outcome
    assert "criu" in outcome.stdout.lower()
    assert "4.2.1" in outcome.stdout
    for host in hosts.both:
        assert host.leftovers() == []


def test_check_of_both_hosts(hosts: Hosts, phaul: Command) -> None:
    remember(hosts)
    outcome = phaul("check", TARGET)
    assert outcome.status in (0, 1), outcome
    assert "host2" in outcome.stdout
    assert "clock" in outcome.stdout
    for host in hosts.both:
        assert host.leftovers() == []


def test_check_without_criu_there(hosts: Hosts, phaul: Command) -> None:
    with hosts.destination.without("/usr/sbin/criu"):
        outcome = phaul("check", TARGET)
    assert outcome.status not in (0, 1), outcome
    assert "criu" in (outcome.stdout + outcome.stderr).lower()


def test_json_is_one_object_also_when_refused(
    hosts: Hosts, victim: StartSubject, phaul: Command
) -> None:
    subject = victim("holder", "userfaultfd")
    outcome = phaul("migrate", subject.pid, TARGET, "--json")
    assert outcome.status == 3, outcome
    assert outcome.json["outcome"] == "not-moved"
    assert outcome.json["process"] == "source"
    subject.only_on(hosts.source, hosts.destination)
