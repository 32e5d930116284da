"""A process that dirties faster than it can be sent is slowed down; afterwards it never is.

Each case has its cgroup: one that only it is in, and one with another process in it.  Where phaul
is killed meanwhile is `faults`."""

from collections.abc import Callable

import pytest

from lab import Lab
from tests.vm.conftest import UNIT, Command
from tests.vm.slowed import DIRTIER, TARGET, WISHES, groups, until_slowed
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

REACHABLE = ("--max-downtime", "4s")
"""All of the victim takes longer than that, on this link; an emulated restore alone some 2 s."""


def test_it_converges_and_is_not_slow_over_there(
    lab: Lab,
    victim: Callable[..., Subject],
    command: Command,
    unit: Callable[[Subject], None],
) -> None:
    subject = victim("dirtier", *DIRTIER)
    unit(subject)
    outcome = command("migrate", subject.pid, TARGET, "--json", *WISHES, *REACHABLE)
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    report = outcome.json["report"]
    assert report["reason"] == "target", report
    slowdown = report["slowdown"]
    assert slowdown["given_back"]
    shares = [step["share"] for step in slowdown["steps"]]
    assert shares == sorted(shares, reverse=True)
    assert slowdown["share"] == shares[-1] < 1
    assert report["rounds"][-1]["share"] == shares[-1]
    assert report["final"]["pages"] < report["rounds"][0]["pages"]
    outcome.says("it does not converge: slowed to")
    limits = lab.dst.sh(
        f"echo +cpu >/sys/fs/cgroup/cgroup.subtree_control; cat {UNIT}/cpu.max; "
        "find /sys/fs/cgroup -name 'phaul-*.slow'; echo -cpu >/sys/fs/cgroup/cgroup.subtree_control"
    )
    assert limits == "max 100000\n"
    assert lab.src.sh("cat /sys/fs/cgroup/cgroup.subtree_control").strip() == ""
    subject.counts_on(lab.dst)


def test_cancelled_it_has_its_cpu_time_back(
    lab: Lab, victim: Callable[..., Subject], unit: Callable[[Subject], None]
) -> None:
    subject = victim("dirtier", *DIRTIER)
    unit(subject)
    # With another one in its group it has to go to a child of that.
    lab.src.sh(f"sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >{UNIT}/cgroup.procs")
    before = groups(lab.src, subject)
    with until_slowed(lab.src, subject) as (running, name):
        assert f"phaul-{name}.slow" in groups(lab.src, subject)
        running.signal(2)  # a `phaul cancel` takes seconds to start, and it could be over by then
        assert running.wait(60) == 130
    assert groups(lab.src, subject) == before
    subject.only_on(lab.src, lab.dst)
    subject.counts_on(lab.src)
