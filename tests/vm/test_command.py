"""The command between two guests, over ssh: what two hosts on one kernel cannot show."""

import pytest

from lab import Lab
from tests.vm.conftest import Command, Subject, left_behind

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

TARGET = "root@dst"
INCOMING = "/var/lib/phaul/incoming"


def test_ssh_finds_phaul_and_asks_nothing(lab: Lab) -> None:
    said = lab.src.sh(f"ssh -o BatchMode=yes {TARGET} 'hostname; phaul --version'")
    name, version, *_ = said.splitlines()
    assert name == "dst"
    assert version.startswith("phaul ")


def test_one_command_pre_copies_it(lab: Lab, command: Command) -> None:
    options = ("--size-mb", 96, "--rate", 300, "--working-set-pages", 1200)
    subject = Subject(lab.src, "dirtier", *options)
    before = subject.check(lab.src)
    # An emulated machine's downtime is seconds: what is asked for must be within its reach.
    outcome = command("migrate", subject.pid, TARGET, "--json", "--max-downtime", "30s")
    assert outcome.status == 0, outcome
    assert not subject.alive(lab.src)
    after = subject.check(lab.dst)
    assert after["counter"] > before["counter"]
    result = outcome.json["report"]
    assert result["way"] == "pre-copy"
    assert len(result["rounds"]) >= 2, outcome
    assert result["final"]["pages"] < result["rounds"][0]["pages"]
    assert left_behind(lab.src) == left_behind(lab.dst) == ""
    assert lab.dst.sh(f"ls {INCOMING}").strip() == ""
    subject.stop(lab.dst)


def test_clocks_apart_are_a_warning(lab: Lab, command: Command) -> None:
    subject = Subject(lab.src, "piggie", "--file", "/root/counted", "--reopen")
    try:
        lab.dst.sh("touch /root/counted; date -s '+90 seconds'")
        outcome = command("migrate", subject.pid, TARGET, "--dry-run")
        assert outcome.status in (0, 1), outcome
        assert "clock" in outcome.stdout + outcome.stderr
        subject.check(lab.src)
    finally:
        lab.dst.clock(step=True)
        subject.stop(lab.src)
