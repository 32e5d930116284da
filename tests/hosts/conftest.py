"""Fixtures: two hosts for all the tests here, victims on the first, and the command."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts.command import Command
from tests.hosts.machine import SHARED, Hosts, two_hosts
from tests.hosts.refusal import Refusal
from tests.hosts.subject import FIRST_PID, HOLDER, VICTIMS, StartSubject, Subject
from tests.victims.harness import start


@pytest.fixture(scope="session")
def machine() -> Iterator[Hosts]:
    """The two hosts."""
    with two_hosts("/phaul/src:/site", os.environ["PYTHONPYCACHEPREFIX"]) as two:
        yield two


@pytest.fixture
def hosts(machine: Hosts) -> Iterator[Hosts]:
    """The two hosts, without anything of a former test."""
    before = {host.name: host.state() for host in machine.both}
    yield machine
    for host in reversed(machine.both):
        host.clean(before[host.name])


@pytest.fixture
def shared(hosts: Hosts) -> Path:
    """A directory that both hosts see, as on network storage."""
    folder = SHARED / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def victim(hosts: Hosts, shared: Path) -> StartSubject:
    """Starts victims on host1: a program of tests/victims, or `holder` with its things."""
    count = iter(range(100))

    def run(name: str, *options: object, program: Path | None = None, report: str = "") -> Subject:
        number = next(count)
        words: list[object] = [program or VICTIMS / name]
        if name == "holder":
            words = ["python3", "-S", HOLDER]
        path = Path(report) if report else shared / f"{name}-{number}.json"
        path.unlink(missing_ok=True)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(FIRST_PID + 100 * number))
        pid = start([*(str(word) for word in (*words, *options)), "--report", str(path)])
        return Subject(name, pid, path)

    return run


@pytest.fixture
def phaul(hosts: Hosts) -> Iterator[Command]:
    """The command on host1."""
    with ExitStack() as stack:
        yield Command(hosts.source, stack)


@pytest.fixture
def refused(hosts: Hosts, phaul: Command) -> Refusal:
    """Asks for a migration that must be refused."""
    return Refusal(hosts, phaul)
