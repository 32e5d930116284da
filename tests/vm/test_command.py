"""The command between two guests: what two hosts on one kernel cannot show, pre-copy above all."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import Lab
from tests.vm.conftest import PHAUL, Command, run_phaul
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

SSH = "root@10.77.0.2"
TLS = "phaul://second"
PATIENT = ("--max-downtime", "20s")
"""For an emulated machine, which restores some 100 MB a second: more than a cutover takes there."""
MIB = 256
"""Pages."""
SIZE_MB = 32
VICTIMS = {
    "dirtier": ("--size-mb", SIZE_MB, "--rate", 400, "--working-set-pages", 1500),
    "tree": ("--dir", "/root/tree"),
    "pyheap.py": ("--size-mb", 4),
}


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[str]:
    """`phaul serve` on dst, which src has joined; the target it is called by."""
    words = [PHAUL, "serve", "--token", "--address", lab.dst.address]
    with lab.dst.spawn(words) as daemon:
        token = daemon.stdout.readline(timeout=60).decode().strip()
        joined = run_phaul(lab.src, "hosts", "add", "second", token)
        assert joined.status == 0, joined
        joined.says("second is known now")
        yield TLS
        daemon.signal(15)
        assert daemon.wait(30) == 0, daemon.stderr.read().decode()


@pytest.fixture
def target(request: pytest.FixtureRequest) -> str:
    """dst, over the transport that the test's parameter names."""
    if request.param == "ssh":
        return SSH
    found: str = request.getfixturevalue("served")
    return found


def test_ssh_finds_phaul_and_asks_nothing(lab: Lab) -> None:
    said = lab.src.sh(f"ssh -o BatchMode=yes {SSH} 'hostname; phaul --version'")
    name, version, *_ = said.splitlines()
    assert name == "dst"
    assert version.startswith("phaul ")


@pytest.mark.parametrize(
    ("target", "name"),
    [*(("ssh", name) for name in VICTIMS), ("tls", "dirtier")],
    indirect=["target"],
)
def test_one_command_pre_copies_it(
    lab: Lab, victim: Callable[..., Subject], command: Command, target: str, name: str
) -> None:
    for guest in lab.guests:
        guest.sh("mkdir -p /root/tree")
    subject = victim(name, *VICTIMS[name])
    before = subject.check(lab.src)

    # The dirtier is to go on: on an idle host, what is asked for would be had after one round.
    goal = ("--max-downtime", "1ms", "--max-rounds", 3, "--on-timeout", "cutover")
    outcome = command(
        "migrate", subject.pid, target, "--json", *(goal if name == "dirtier" else PATIENT)
    )

    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    after = subject.counts_on(lab.dst)
    assert after["counter"] > before["counter"]
    moved = outcome.json
    assert (moved["outcome"], moved["process"]) == ("moved", "destination")
    report = moved["report"]
    is_sane(report, subject, after)
    if name == "dirtier":
        sent = [one["pages"] for one in report["rounds"]]
        assert len(sent) >= 2, "more than one round"
        assert sent[0] >= SIZE_MB * MIB, "all its memory"
        assert sent == sorted(sent, reverse=True), "that get smaller"
        assert report["final"]["pages"] < sent[0] / 4
        if target == SSH:
            are_told(command, subject, report)


def is_sane(report: dict[str, Any], subject: Subject, after: dict[str, Any]) -> None:
    """The figures of a report, against each other and against what the victim has seen."""
    assert (report["pid"], report["destination_pid"]) == (subject.pid, subject.pid)
    assert (report["source"], report["destination"]) == ("src", "dst")
    assert (report["source_criu"], report["destination_criu"]) == ("4.2.1", "4.2.1")
    assert report["way"] == "pre-copy"
    rounds, final = report["rounds"], report["final"]
    assert [one["number"] for one in rounds] == list(range(len(rounds)))
    for one in (*rounds, final):
        assert 0 < one["frozen_s"] <= one["seconds"] + 60
        pages = one["pages"] + one["shared_pages"]
        assert one["wire_bytes"] is None or one["wire_bytes"] > 0
        assert pages >= 0
    for one, later in zip(rounds, [*rounds[1:], final], strict=True):
        assert one["begun_s"] + one["seconds"] <= later["begun_s"] + 0.01
        assert one["predicted_downtime_s"] > 0
    assert report["memory_bytes"] > 0
    downtime = sum(report["downtime"].values())
    assert all(part >= 0 for part in report["downtime"].values())
    assert sum(one["seconds"] for one in rounds) + final["seconds"] < report["seconds"]
    assert downtime < report["seconds"]
    # The victim's own largest gap is the downtime; it beats every few milliseconds.
    gap = after["max_gap_ms"] / 1e3
    assert downtime / 2 < gap < downtime * 2 + 1, (gap, report["downtime"])


def are_told(command: Command, subject: Subject, report: dict[str, Any]) -> None:
    """`list`, `status` and `report` tell the same afterwards."""
    listed = command("list")
    assert listed.status == 0, listed
    line = next(line for line in listed.stdout.splitlines() if report["id"] in line)
    assert str(subject.pid) in line
    assert SSH in line
    status = command("status", report["id"])
    assert status.status == 0, status
    status.says("done")
    again = command("report", "last", "--json")
    assert again.status == 0, again
    assert again.json == report


def test_a_downtime_that_is_not_to_be_had_is_refused(
    lab: Lab, victim: Callable[..., Subject], command: Command
) -> None:
    """With the default of 300 ms: an emulated machine needs more for the least process."""
    subject = victim("dirtier", "--size-mb", 4)
    outcome = command("migrate", subject.pid, SSH)
    assert outcome.status == 6, outcome
    outcome.says(
        "the pre-copy did not come to the downtime asked for",
        "more than 300 ms",
        "--max-downtime",
        "--on-timeout cutover",
        f"still running here, PID {subject.pid}",
        "nothing left on dst",
    )
    subject.only_on(lab.src, lab.dst)
    subject.counts_on(lab.src)


def test_clocks_apart_are_a_warning_and_no_more(
    lab: Lab, victim: Callable[..., Subject], command: Command
) -> None:
    subject = victim("dirtier", "--size-mb", 4)
    try:
        lab.dst.sh("date -s '+1 second'")
        outcome = command("migrate", subject.pid, SSH, "--json", *PATIENT)
    finally:
        lab.dst.clock(step=True)
    assert outcome.status == 0, outcome
    found = {finding["check"]: finding for finding in outcome.json["report"]["findings"]}["clock"]
    assert found["level"] == "warning"
    offset = found["what"].partition("ahead by ")[2].split()
    assert offset[1] in ("s", "ms"), found
    seconds = float(offset[0]) / (1000 if offset[1] == "ms" else 1)
    assert 0.8 < seconds < 1.2, found
    outcome.says("the clock there is ahead by")
    subject.only_on(lab.dst, lab.src)
    subject.counts_on(lab.dst)
