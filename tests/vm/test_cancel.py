"""A migration that pre-copies is cancelled at each of its moments before the cutover."""

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
"""More rounds whatever they come to, and the cutover all the same."""
MOMENTS = (
    ("connecting", "-"),
    ("connected", "-"),
    ("checked", "-"),
    ("planned", "-"),
    ("started", "-"),
    ("round-started", "0"),
    ("round-progress", "0"),
    ("round-finished", "0"),
    ("round-started", "1"),
    ("round-progress", "1"),
    ("pre-copy-stopped", "-"),
    ("cutover-started", "-"),
)


@pytest.fixture(scope="module")
def subject(lab: Lab) -> Iterator[Subject]:
    """One victim for all: it must bear them one after another."""
    options = ("--size-mb", 8, "--rate", 4000, "--working-set-pages", 1500)
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


def is_still_here(lab: Lab, subject: Subject, found: dict[str, Any], status: int) -> None:
    """phaul says so, with its status, and it is so."""
    outcome = Outcome(found["status"], found["stdout"], found["stderr"])
    assert outcome.status == status, outcome
    outcome.says("cancelled", f"still running here, PID {subject.pid}")
    if any(event["event"] == "connected" for event in found["events"]):
        outcome.says("nothing left on dst")
    last = found["events"][-1]
    assert (last["event"], last["kind"]) == ("failed", "Cancelled")
    subject.only_on(lab.src, lab.dst)
    subject.counts_on(lab.src)


@pytest.mark.parametrize(("event", "number"), MOMENTS)
def test_ctrl_c(lab: Lab, subject: Subject, event: str, number: str) -> None:
    is_still_here(lab, subject, cancelled(lab, subject, event, number, "INT"), 130)


@pytest.mark.parametrize(("event", "number"), MOMENTS)
def test_from_another_shell(lab: Lab, subject: Subject, event: str, number: str) -> None:
    found = cancelled(lab, subject, event, number, "cancel")
    is_still_here(lab, subject, found, 130)
    there = Outcome(**found["cancel"])
    assert there.status == 130, there
    there.says("cancelled", f"still running here, PID {subject.pid}")


def test_sigterm_in_a_round(lab: Lab, subject: Subject) -> None:
    found = cancelled(lab, subject, "round-progress", "1", "TERM")
    is_still_here(lab, subject, found, 143)


def test_afterwards_it_is_moved(lab: Lab, subject: Subject, command: Command) -> None:
    outcome = command("migrate", subject.pid, TARGET, "--max-downtime", "20s")
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    subject.counts_on(lab.dst)
