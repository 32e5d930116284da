"""Two guests for all the tests here, with the project in them.  Runs on the host."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab import Guest, Lab
from tests.vm.subject import Subject
from tools.guests import COMPAT, CURRENT, ENVIRONMENT, PROJECT, install, install_all, stage

PHAUL = "/usr/local/bin/phaul"
"""By its path: the guests' agent has a short PATH."""
UNIT = "/sys/fs/cgroup/unit"
_PLUGINS = ("-p", "pytest_timeout", "-p", "no:cacheprovider")


@pytest.fixture(scope="session")
def project() -> Path:
    """What the guests get, compiled for their Python."""
    return stage(CURRENT)


@pytest.fixture(scope="session")
def lab(project: Path) -> Iterator[Lab]:
    """Two guests with the same CRIU; dirty memory is tracked by the page, not by 2 MiB.

    What is on their disks outlives a power cut.
    """
    with Lab(memory_mib=1536, thp="never", persistent=True) as two:
        install_all(two.guests, project)
        two.authorize()
        for guest in two.guests:
            guest.sh("sync")
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

    def says(self, *texts: str) -> None:
        """Each of the texts must stand in its output, however the lines are broken."""
        said = "".join((self.stdout + self.stderr).split())
        for text in texts:
            assert "".join(text.split()) in said, f"{text!r} is not said: {self}"


Command = Callable[..., Outcome]


def run_phaul(guest: Guest, *words: object, timeout: float = 300) -> Outcome:
    """Run `phaul` on a guest, to its end."""
    result = guest.run([PHAUL, *(str(word) for word in words)], timeout=timeout)
    return Outcome(result.status, result.stdout.decode(), result.stderr.decode())


@pytest.fixture
def command(lab: Lab) -> Command:
    """`phaul` on `src`; the other guest is `root@dst`."""
    return partial(run_phaul, lab.src)


@pytest.fixture
def victim(lab: Lab) -> Iterator[Callable[..., Subject]]:
    """Starts victims on `src`; each is ended, wherever it is then."""
    started: list[Subject] = []

    def start(name: str, *options: object) -> Subject:
        started.append(Subject(lab.src, name, *options))
        return started[-1]

    yield start
    for subject in started:
        subject.stop(*lab.guests)


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


def run_pytest(guest: Guest, *words: str) -> str:
    """Run engine tests in the guest, all of which must pass; what pytest said."""
    result = guest.run(
        # Of the plugins only what the tests need: an emulated guest takes seconds for the rest.
        ["python3", "-m", "pytest", "-q", "-x", *_PLUGINS, *words],
        cwd=PROJECT,
        env={**ENVIRONMENT, "PHAUL_SLOW": "10", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=600,
    )
    said = result.stdout.decode() + result.stderr.decode()
    assert result.status == 0, said
    return said
