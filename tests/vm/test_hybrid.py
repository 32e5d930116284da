"""A process that dirties faster than it can be sent: it moves, and what is dirty follows."""

from collections.abc import Callable

import pytest

from lab import Lab
from tests.vm.conftest import Command
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

TARGET = "root@dst"
WISHES = ("--bandwidth", "2M", "--compress", "none", "--max-downtime", "1s")
POSTCOPY = ("--on-timeout", "postcopy", "--timeout", "5m")
DIRTIER = ("--size-mb", 8, "--rate", 3000)


def test_what_is_dirty_follows(lab: Lab, victim: Callable[..., Subject], command: Command) -> None:
    subject = victim("dirtier", *DIRTIER)
    outcome = command("migrate", subject.pid, TARGET, "--json", *WISHES, *POSTCOPY)
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    report = outcome.json["report"]
    assert report["way"] == "pre-copy, then post-copy", report
    assert report["reason"] != "target"
    followed, rounds = report["followed"], report["rounds"]
    assert followed["on_demand"] + followed["swept"] == followed["pages"] > 0
    # What the last round found dirty is about what is dirty at the cutover; beside it only what
    # cannot follow is sent.
    dirty = rounds[-1]["pages"]
    assert followed["pages"] + report["final"]["pages"] <= 1.1 * dirty, report
    subject.counts_on(lab.dst)


def test_a_tree_of_processes(lab: Lab, victim: Callable[..., Subject], command: Command) -> None:
    subject = victim("tree", "--dir", "/var/tmp")
    outcome = command(
        "migrate", subject.pid, TARGET, "--json", *POSTCOPY, "--max-downtime", "1ms",
        "--max-rounds", 2,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    report = outcome.json["report"]
    assert report["way"] == "pre-copy, then post-copy", report
    assert report["followed"]["pages"] < report["rounds"][0]["pages"]
    subject.counts_on(lab.dst)


def test_no_rounds_at_all(lab: Lab, victim: Callable[..., Subject], command: Command) -> None:
    subject = victim("dirtier", *DIRTIER)
    outcome = command("migrate", subject.pid, TARGET, "--json", "--post-copy")
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    assert outcome.json["report"]["way"] == "post-copy"
    subject.counts_on(lab.dst)
