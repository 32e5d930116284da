"""examples/two_machines.py: the library embedded, with an RPC of its own, between two guests."""

import time

import pytest

from lab import Lab
from tests.vm.subject import Subject
from tools.guests import ENVIRONMENT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

ADDRESS = "10.77.0.2:7070"


def move(lab: Lab, pid: int) -> str:
    """Move a process from src to dst by the example; what it printed."""
    module = ["python3", "-m", "examples.two_machines"]
    with lab.dst.spawn([*module, "serve", ADDRESS, "/root/images"], env=ENVIRONMENT) as there:
        for _ in range(600):
            if lab.dst.run(["ss", "-Hltn", "sport = :7070"]).stdout:
                break
            time.sleep(0.05)
        moved = lab.src.run(
            [*module, "move", str(pid), ADDRESS, "/root/images"], env=ENVIRONMENT, timeout=180
        )
        assert moved.status == 0, moved
        assert there.wait(60) == 0, there.stderr.read().decode()
    lab.src.sh("rm -rf /root/images")
    return moved.stdout.decode()


def test_shared_memory_is_sent_last(lab: Lab) -> None:
    options = ("--size-mb", 96, "--rate", 300, "--working-set-pages", 1200)
    subject = Subject(lab.src, "dirtier", *options, "--kinds", "private:3,shared")
    before = subject.check(lab.src)

    said = move(lab, subject.pid)

    subject.only_on(lab.dst, lab.src)
    assert subject.counts_on(lab.dst)["counter"] > before["counter"]
    lines = said.splitlines()
    rounds = [float(line.split()[2]) for line in lines if line.startswith("round")]
    final = next(float(line.split()[1]) for line in lines if line.startswith("final"))
    assert len(rounds) >= 2, said
    assert rounds == sorted(rounds, reverse=True), "the rounds get smaller"
    assert rounds[0] >= 72, "all private memory"
    # CRIU 4.2.1 sends shared memory in the final dump only (tried; its pre-dump takes it for a
    # file), so that is 24 MiB and what was dirty last.
    assert 24 <= final < 24 + rounds[0] / 4
    subject.stop(lab.dst)
