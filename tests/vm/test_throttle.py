"""A process that dirties faster than it can be sent is slowed down; afterwards it never is.

Each case has its cgroup: one that only it is in, one with another process in it, and the root."""

import json
from collections.abc import Callable, Iterator

import pytest

from lab import Guest, Lab
from lab.command import Command as Spawned
from tests.vm.conftest import PHAUL, Command
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

TARGET = "root@dst"
WISHES = ("--bandwidth", "2M", "--on-timeout", "throttle", "--timeout", "5m")
REACHABLE = ("--max-downtime", "4s")
"""All of the victim takes longer than that, on this link; an emulated restore alone some 2 s."""
DIRTIER = ("--size-mb", 8, "--rate", 3000)
UNIT = "/sys/fs/cgroup/unit"
_LOOK = (
    "cat /proc/{pid}/cgroup; cd /sys/fs/cgroup; cat cgroup.subtree_control; "
    "find . -mindepth 1 -type d | while read d; do "
    "echo $d $(cat $d/cpu.max 2>/dev/null) $(cat $d/cgroup.type) $(sort $d/cgroup.threads); done; "
    "ls /var/lib/phaul/migrations/*/owed.json 2>/dev/null; true"
)


@pytest.fixture
def unit(lab: Lab) -> Iterator[Callable[[Subject], None]]:
    """Puts a victim into a cgroup of its own; the group is removed on both guests."""

    def put(subject: Subject) -> None:
        lab.src.sh(f"mkdir -p {UNIT}; echo {subject.pid} >{UNIT}/cgroup.procs")

    yield put
    for guest in lab.guests:
        guest.sh(
            f"test ! -d {UNIT} || {{ for pid in $(cat {UNIT}/cgroup.procs); do "
            f"kill -9 $pid; done; sleep 0.5; rmdir {UNIT}; }}"
        )


@pytest.fixture
def killed(lab: Lab) -> Iterator[None]:
    """A phaul that is killed on the source: what it leaves there is of no use to the next test."""
    yield
    lab.src.sh("rm -rf /var/lib/phaul/migrations/*/images /tmp/phaul-ssh-*")


def groups(guest: Guest, subject: Subject) -> str:
    """Which groups there are, what is in them and limits them; where the victim is."""
    return guest.sh(_LOOK.format(pid=subject.pid))


def until_slowed(guest: Guest, subject: Subject) -> Spawned:
    """Migrate it, until it is slowed down."""
    words = [PHAUL, "migrate", str(subject.pid), TARGET, "--events", "jsonl", *WISHES]
    running = guest.spawn([*words, "--max-downtime", "1s"])
    for line in running.stdout.lines(timeout=120):
        if json.loads(line)["event"]["event"] == "slowed-down":
            return running
    raise AssertionError(running.stderr.read())


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
    lab: Lab, victim: Callable[..., Subject], command: Command, unit: Callable[[Subject], None]
) -> None:
    subject = victim("dirtier", *DIRTIER)
    unit(subject)
    # With another one in its group it has to go to a child of that.
    lab.src.sh(f"sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >{UNIT}/cgroup.procs")
    before = groups(lab.src, subject)
    with until_slowed(lab.src, subject) as running:
        assert f"phaul-{last(command)}.slow" in groups(lab.src, subject)
        assert command("cancel", "last").status == 130
        assert running.wait(60) == 130
    assert groups(lab.src, subject) == before
    subject.only_on(lab.src, lab.dst)
    subject.counts_on(lab.src)


@pytest.mark.usefixtures("killed")
def test_a_killed_phaul_leaves_nothing_slow(
    lab: Lab, victim: Callable[..., Subject], command: Command
) -> None:
    subject = victim("dirtier", *DIRTIER)
    before = groups(lab.src, subject)
    with until_slowed(lab.src, subject) as running:
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
    with until_slowed(lab.src, subject) as running:
        lab.src.sh("pkill -9 -f phaul.source.watche[r]")
        running.signal(9)
        assert running.wait(60) == 137
    assert groups(lab.src, subject) != before
    outcome = command("status", "last")
    outcome.says("its phaul died while the process was slowed down", "CPU time back")
    assert groups(lab.src, subject) == before
    subject.counts_on(lab.src)


def last(command: Command) -> str:
    """The newest migration's ID."""
    found: str = json.loads(command("list", "--json").stdout)["migrations"][0]["id"]
    return found
