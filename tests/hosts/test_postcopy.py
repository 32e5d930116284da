"""A migration whose memory is left on the source, and follows when the process runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from phaul.criu.lazydump import PIPE
from tests.hosts.command import Command
from tests.hosts.machine import Hosts
from tests.hosts.subject import StartSubject

LIMIT = Path("/proc/sys/fs/pipe-max-size")

VICTIMS = [
    ("dirtier", ("--size-mb", "64", "--kinds", "private:2,shared")),
    ("tree", ("--dir", "/var/tmp/shared")),
    ("forker", ("--size-kb", "16384")),
    ("mapper", ("--empty-whole",)),
    ("pyheap.py", ()),
]


@pytest.fixture(autouse=True)
def _pipes() -> Iterator[None]:
    """CRIU gets its pipes, also without CAP_SYS_RESOURCE."""
    before = LIMIT.read_text()
    LIMIT.write_text(str(max(int(before), PIPE)))
    yield
    LIMIT.write_text(before)


@pytest.mark.parametrize(("name", "options"), VICTIMS, ids=[name for name, _ in VICTIMS])
def test_it_is_whole_and_nothing_is_left(
    hosts: Hosts, victim: StartSubject, phaul: Command, name: str, options: tuple[str, ...]
) -> None:
    subject = victim(name, *options)
    counter = subject.whole(hosts.source).counter
    pids = subject.pids()
    for host in hosts.both:
        host.remember()
    outcome = phaul.migrate(subject, "--post-copy", "--json")
    assert outcome.status == 0, outcome
    report = outcome.json["report"]
    assert report["way"] == "post-copy"
    followed = report["followed"]
    assert followed["pages"] > 0
    if name not in ("forker", "mapper"):
        assert followed["on_demand"] + followed["swept"] == followed["pages"]
    assert outcome.event("draining")["follows"]
    assert subject.only_on(hosts.destination, hosts.source).counter > counter
    if name != "forker":  # it has other children by now
        assert hosts.destination.leftovers(but=pids) == []
    assert hosts.source.leftovers() == []
