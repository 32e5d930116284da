"""Each victim moved to another PID namespace by the library, and asked whether it is whole.

Natively that is stop and copy; in a guest, whose kernel tracks dirty memory, the same tests
pre-copy.
"""

import socket
from pathlib import Path

import pytest

import phaul
from examples.local_migration import RestoreAfterwards, destination
from tests.engine.conftest import SLOW, Place, StartVictim, copies_of, counts_on, criu_processes
from tests.victims.harness import Report, Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


def check_moved(before: Victim, first: Report, there: Path) -> Report:
    """The one copy that lives is whole, and goes on; returns its report."""
    copies = copies_of(before.pid)
    assert len(copies) == 1, copies
    assert not before.alive()
    moved = Victim(copies[0], before.report_path)
    second = moved.check(60 * SLOW)
    assert second.ok, second.problems
    assert second.counter >= first.counter
    third = counts_on(moved, second.counter)
    assert criu_processes(idle=False) == []
    return third


def victims(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        "piggie": ("--file", folder / "count"),
        "dirtier": ("--size-mb", 32, "--kinds", "private,shared,file", "--file", folder / "mapped"),
        "tree": ("--dir", folder),
        "pyheap.py": ("--size-mb", 16),
        "forker": (),
        "mapper": (),
    }


@pytest.mark.parametrize("name", ["piggie", "dirtier", "tree", "pyheap.py", "forker", "mapper"])
def test_victim_survives_the_move(
    name: str, victim: StartVictim, place: Place, tmp_path: Path
) -> None:
    before = victim(name, *victims(tmp_path)[name])
    first = before.check(60 * SLOW)
    assert first.ok, first.problems

    report = place.client(place.config(before.pid)).migrate()

    check_moved(before, first, place.there)
    assert report.pid == before.pid
    assert report.downtime.total_s > 0
    assert report.sent_bytes > 0
    assert phaul.Report.from_json(report.to_json()) == report


@pytest.mark.parametrize("side", ["echo_server", "echo_client"])
def test_tcp_connections_survive_the_move(side: str, victim: StartVictim, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = victim("echo_server", "--listen", address)
    client = victim("echo_client", "--connect", address, "--connections", 3)
    assert client.check(60 * SLOW).ok
    before, other = (server, client) if side == "echo_server" else (client, server)
    first = before.check(60 * SLOW)
    options = phaul.CriuOptions(tcp_established=True)

    with destination(tmp_path / "there", ["--tcp-established"]) as (remote, memory_fd):
        place = Place(remote, memory_fd, tmp_path)
        config = place.config(before.pid, options)
        phaul.Client(RestoreAfterwards(remote), remote, config).migrate()
        check_moved(before, first, place.there)
        report = other.check(60 * SLOW)
        assert report.ok, report.problems


def test_events_tell_the_story_in_order(victim: StartVictim, place: Place) -> None:
    before = victim("dirtier", "--size-mb", 8, "--rate", 100)
    place.client(place.config(before.pid)).migrate()
    names = [type(event).__name__ for event in place.events]
    assert names[0] == "Started"
    assert names[-4:] == ["PreCopyStopped", "CutoverStarted", "Held", "SourceGone"]
    started = place.events[0]
    assert isinstance(started, phaul.report.Started)
    rounds = names.count("RoundFinished")
    assert (rounds > 0) == (started.way is phaul.Way.PRE_COPY)
