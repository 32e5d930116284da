"""Two guests for all the tests here, with the project in them.  Runs on the host."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import Guest, Lab
from tools.guests import COMPAT, CURRENT, ENVIRONMENT, PROJECT, install, install_all, stage

VICTIMS = f"{PROJECT}/victims"
ADDRESS = "10.77.0.2:7070"
FIRST_PID = 5000
"""Victims' PIDs: far from what a guest starts by itself, so that they are free on the other."""


@pytest.fixture(scope="session")
def project() -> Path:
    """What the guests get, compiled for their Python."""
    return stage(CURRENT)


@pytest.fixture(scope="session")
def lab(project: Path) -> Iterator[Lab]:
    """Two guests with the same CRIU; dirty memory is tracked by the page, not by 2 MiB."""
    with Lab(memory_mib=1536, thp="never") as two:
        install_all(two.guests, project)
        two.authorize()
        yield two


@pytest.fixture(scope="module")
def mixed(project: Path) -> Iterator[Lab]:
    """Two guests whose CRIUs speak different page server protocols: 4.2.1, and 4.1.1 on `dst`."""
    with Lab(memory_mib=1024, thp="never", dst_image="compat") as two:
        install(two.src, project)
        install(two.dst, stage(COMPAT))
        two.authorize()
        yield two


@dataclass(frozen=True)
class Outcome:
    """What the command came to."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object of `--json`."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


Command = Callable[..., Outcome]


def run_phaul(guest: Guest, *words: object, timeout: float = 300) -> Outcome:
    """Run `phaul` on a guest, to its end."""
    argv = ["/usr/local/bin/phaul", *(str(word) for word in words)]
    result = guest.run(argv, timeout=timeout)
    return Outcome(result.status, result.stdout.decode(), result.stderr.decode())


@pytest.fixture
def command(lab: Lab) -> Command:
    """`phaul` on `src`; the other guest is `root@dst`."""
    return partial(run_phaul, lab.src)


def run_pytest(guest: Guest, *words: str) -> str:
    """Run engine tests in the guest, all of which must pass; what pytest said."""
    result = guest.run(
        ["python3", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words],
        cwd=PROJECT,
        env={**ENVIRONMENT, "PHAUL_SLOW": "10"},
        timeout=600,
    )
    said = result.stdout.decode() + result.stderr.decode()
    assert result.status == 0, said
    return said


class Subject:
    """A victim in a guest."""

    def __init__(self, guest: Guest, name: str, *options: object) -> None:
        self.name = name
        self.report = f"/root/{name}.json"
        words = " ".join(str(word) for word in options)
        # `exec`: the victim's background process is then the first to get a PID after this line.
        started = guest.sh(
            f"echo {FIRST_PID - 1} >/proc/sys/kernel/ns_last_pid; "
            f"exec {VICTIMS}/{name} {words} --report {self.report}",
            timeout=120,
        )
        self.pid = int(started)

    def check(self, guest: Guest) -> dict[str, Any]:
        """Have it check itself on the guest where it is; its report, which must be good."""
        words = ["python3", f"{VICTIMS}/harness.py", "check", str(self.pid), self.report]
        result = guest.run(words, timeout=120)
        assert result.stdout, result.stderr.decode()
        report: dict[str, Any] = json.loads(result.stdout)
        assert report["ok"], report["problems"]
        return report

    def alive(self, guest: Guest) -> bool:
        """Whether it runs on this guest."""
        words = ["python3", f"{VICTIMS}/harness.py", "alive", str(self.pid)]
        return guest.run(words, timeout=60).status == 0

    def stop(self, guest: Guest) -> None:
        """End it there."""
        words = ["python3", f"{VICTIMS}/harness.py", "stop", str(self.pid)]
        guest.run(words, timeout=60, check=True)


def move(lab: Lab, pid: int) -> dict[str, Any]:
    """Move a process from src to dst by examples/two_machines.py; what it printed.

    Raises AssertionError with what went wrong if either end fails.
    """
    module = ["python3", "-m", "examples.two_machines"]
    with lab.dst.spawn([*module, "serve", ADDRESS, "/root/images"], env=ENVIRONMENT) as there:
        wait_listening(lab.dst)
        moved = lab.src.run(
            [*module, "move", str(pid), ADDRESS, "/root/images"], env=ENVIRONMENT, timeout=180
        )
        status = there.wait(60)
        said = moved.stdout.decode() + moved.stderr.decode()
        assert moved.status == 0, said
        assert status == 0, there.stderr.read().decode()
    lab.src.sh("rm -rf /root/images")
    return parse(said)


def parse(said: str) -> dict[str, Any]:
    """The figures of what two_machines prints: MiB of each round, and of the final dump."""
    rounds = [float(line.split()[2]) for line in said.splitlines() if line.startswith("round")]
    final = [float(line.split()[1]) for line in said.splitlines() if line.startswith("final")]
    return {"rounds": rounds, "final": final[0], "said": said}


def wait_listening(guest: Guest) -> None:
    """Wait until the destination listens."""
    for _ in range(600):
        if guest.run(["ss", "-Hltn", "sport = :7070"]).stdout:
            return
        time.sleep(0.05)
    raise AssertionError("the destination does not listen")


def left_behind(guest: Guest) -> str:
    """Processes and images of a migration that are still on a guest; empty if there are none."""
    return guest.sh("pidof criu; ls -d /root/images/*/*.img 2>/dev/null; true").strip()
