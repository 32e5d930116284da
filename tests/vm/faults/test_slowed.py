"""Phaul is killed while it slows a process down, which never stays slow.

Each case has its cgroup: the root, and one that only it is in."""

from collections.abc import Callable, Iterator

import pytest

from lab import Lab
from tests.vm.conftest import Command
from tests.vm.slowed import DIRTIER, groups, until_slowed
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


@pytest.fixture
def killed(lab: Lab) -> Iterator[None]:
    """A phaul that is killed on the source: what it leaves there is of no use to the next test."""
    yield
    lab.src.sh("rm -rf /var/lib/phaul/migrations/*/images /tmp/phaul-ssh-*")


@pytest.mark.usefixtures("killed")
def test_a_killed_phaul_leaves_nothing_slow(
    lab: Lab, victim: Callable[..., Subject], command: Command
) -> None:
    subject = victim("dirtier", *DIRTIER)
    before = groups(lab.src, subject)
    with until_slowed(lab.src, subject) as (running, _):
        running.signal(9)
        assert running.wait(60) == 137
    lab.src.sh("timeout 30 sh -c 'while pgrep -f phaul.source.watche[r]; do sleep 0.1; done'")
    assert groups(lab.src, subject) == before
    assert command("list").status == 0
    subject.counts_on(lab.src)


@pytest.mark.usefixtures("killed")
def test_nor_one_whose_watcher_is_killed_too(
    lab: Lab, victim: Callable[..., Subject], command: Command, unit: Callable[[Subject], None]
) -> None:
    subject = victim("dirtier", *DIRTIER)
    unit(subject)
    before = groups(lab.src, subject)
    with until_slowed(lab.src, subject) as (running, _):
        lab.src.sh("pkill -9 -f phaul.source.watche[r]")
        running.signal(9)
        assert running.wait(60) == 137
    assert groups(lab.src, subject) != before
    outcome = command("status", "last")
    outcome.says("its phaul died while the process was slowed down", "CPU time back")
    assert groups(lab.src, subject) == before
    subject.counts_on(lab.src)
