"""A migration that pre-copies is cancelled in its rounds; its other moments are `tests/hosts`'."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab
from tests.vm.conftest import Command, Outcome
from tests.vm.subject import Subject
from tools.guests import ENVIRONMENT, PROJECT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

TARGET = "root@dst"
SLOW = ("--bandwidth", "4M", "--max-rounds", "3")
"""With it, each round of the victim takes a second or more: there is a middle of it."""
TO_THE_END = ("--max-downtime", "1ms", "--on-timeout", "cutover")
"""A second round whatever the first comes to, and the cutover all the same."""
CASES = (
    ("round-started", "0", "cancel"),
    ("round-progress", "0", "INT"),
    ("round-finished", "0", "cancel"),
    ("round-progress", "1", "TERM"),
    ("pre-copy-stopped", "-", "INT"),
    ("cutover-started", "-", "cancel"),
)
"""The event, its round, and the way it is cancelled: canceller.py has them.  Each moment of a round
once, and the ways in turn: a case takes an emulated machine some fifteen seconds."""


@pytest.fixture(scope="module")
def subject(lab: Lab) -> Iterator[Subject]:
    """One victim for all: it must bear them one after another."""
    options = ("--size-mb", 8, "--rate", 1000, "--working-set-pages", 1500)
    found = Subject(lab.src, "dirtier", *options, "--heartbeat-us", 5000)
    yield found
    found.stop(*lab.guests)


def cancelled(lab: Lab, subject: Subject, event: str, number: str, way: str) -> dict[str, Any]:
    """Migrate it, cancel that at the moment; what came of it."""
    words = [f"{PROJECT}/tests/vm/canceller.py", event, number, way, str(subject.pid), TARGET]
    argv = ["python3", "-S", "-P", *words, *SLOW, *TO_THE_END]
    result = lab.src.run(argv, env=ENVIRONMENT, timeout=200)
    assert result.status == 0, result
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["came"], found
    return found


@pytest.mark.parametrize(("event", "number", "way"), CASES)
def test_it_stays_whole(lab: Lab, subject: Subject, event: str, number: str, way: str) -> None:
    found = cancelled(lab, subject, event, number, way)
    outcome = Outcome(found["status"], found["stdout"], found["stderr"])
    assert outcome.status == (143 if way == "TERM" else 130), outcome
    outcome.says("cancelled", f"still running here, PID {subject.pid}")
    outcome.says("nothing left on dst")
    last = found["events"][-1]
    assert (last["event"], last["kind"]) == ("failed", "Cancelled")
    if way == "cancel":
        there = Outcome(**found["cancel"])
        assert there.status == 130, there
        there.says("cancelled", f"still running here, PID {subject.pid}", "nothing left on dst")
    subject.only_on(lab.src, lab.dst)
    subject.counts_on(lab.src)


def test_afterwards_it_is_moved(lab: Lab, subject: Subject, command: Command) -> None:
    outcome = command("migrate", subject.pid, TARGET, "--max-downtime", "20s")
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    subject.counts_on(lab.dst)
