"""A process in huge pages: what they add is told, and split they add nothing.

khugepaged is told to hurry, so that it would put split pages together again between two rounds."""

import json
from collections.abc import Callable, Iterator

import pytest

from lab import Lab
from tests.vm.conftest import PHAUL, Command
from tests.vm.subject import Subject

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

TARGET = "root@dst"
DIRTIER = ("--size-mb", 40, "--thp", "always", "--rate", 400, "--apart", 256, "--fill", "zero")
"""A page in each MiB: all of its 20 huge pages again and again, and 40 pages of 10,240."""
ROUNDS = ("--max-downtime", "1ms", "--max-rounds", 2, "--on-timeout", "cutover")
_PAGES = 10240
_HURRIED = 100
_KHUGEPAGED = "/sys/kernel/mm/transparent_hugepage/khugepaged"
_PACE = f"{_KHUGEPAGED}/scan_sleep_millisecs"
_DEBUGFS = "/sys/kernel/debug"


@pytest.fixture
def huge(lab: Lab) -> Iterator[None]:
    """The source has huge pages, and debugfs; afterwards neither."""
    before = lab.src.sh(f"cat {_PACE}")
    lab.src.set_thp("madvise")
    lab.src.sh(
        f"echo {_HURRIED} >{_PACE}; mountpoint -q {_DEBUGFS} || mount -t debugfs d {_DEBUGFS}"
    )
    yield
    lab.src.set_thp("never")
    lab.src.sh(f"echo {before} >{_PACE}; umount {_DEBUGFS}")


@pytest.mark.usefixtures("huge")
def test_split_they_add_nothing(lab: Lab, victim: Callable[..., Subject], command: Command) -> None:
    subject = victim("dirtier", *DIRTIER)
    checked = command("check", "--pid", subject.pid)
    assert checked.status == 0, checked
    checked.says("one byte written is 2 MiB to be sent again, now about", "--split-huge-pages")

    outcome = command("migrate", subject.pid, TARGET, "--json", "--split-huge-pages", *ROUNDS)
    assert outcome.status == 0, outcome
    subject.only_on(lab.dst, lab.src)
    subject.counts_on(lab.dst)
    report = outcome.json["report"]
    later = report["rounds"][1:]
    assert later
    assert all(r["pages"] < _PAGES // 8 for r in [*later, report["final"]]), report
    assert report["split"]["split_bytes"] > 32 << 20
    assert report["split"]["given_back"]
    outcome.says("huge pages are split before the first round", "khugepaged waits")
    assert lab.src.sh(f"cat {_PACE}") == f"{_HURRIED}\n"
    assert (
        lab.src.sh("find /var/lib/phaul -name owed.json; pgrep -f phaul.source.watche[r]; true")
        == ""
    )


@pytest.mark.usefixtures("huge")
def test_left_as_they_are_it_is_told(
    lab: Lab, victim: Callable[..., Subject], command: Command
) -> None:
    subject = victim("dirtier", *DIRTIER)
    outcome = command("migrate", subject.pid, TARGET, "--json", *ROUNDS)
    assert outcome.status == 0, outcome
    last = outcome.json["report"]["rounds"][-1]
    assert last["pages"] > _PAGES // 2
    assert last["amplification"] > 16
    outcome.says("times what was written; --split-huge-pages would split them first")
    subject.counts_on(lab.dst)


@pytest.mark.usefixtures("huge")
def test_a_killed_phaul_leaves_no_khugepaged_that_waits(
    lab: Lab, victim: Callable[..., Subject]
) -> None:
    subject = victim("dirtier", *DIRTIER)
    words = [PHAUL, "migrate", str(subject.pid), TARGET, "--events", "jsonl", "--bandwidth", "1M"]
    with lab.src.spawn([*words, "--split-huge-pages"]) as running:
        for line in running.stdout.lines(timeout=120):
            if json.loads(line)["event"]["event"] == "huge-pages-split":
                break
        else:
            raise AssertionError(running.stderr.read())
        assert int(lab.src.sh(f"cat {_PACE}")) > 1_000_000
        running.signal(9)
        assert running.wait(60) == 137
    lab.src.sh("timeout 30 sh -c 'while pgrep -f phaul.source.watche[r]; do sleep 0.1; done'")
    assert lab.src.sh(f"cat {_PACE}") == f"{_HURRIED}\n"
    subject.counts_on(lab.src)
    lab.src.sh("rm -rf /var/lib/phaul/migrations/*/images /tmp/phaul-ssh-*")
