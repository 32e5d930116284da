"""A state directory with migrations, and one that runs and can be steered."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from phaul.cli.main import main
from phaul.errors import Cancelled
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.source.steering import Standing, serve
from phaul.storage.entry import State
from phaul.storage.journal import Journal, SourceRecord
from phaul.storage.registry import Handle, Registry
from phaul.storage.state_dir import StateDir


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PHAUL_AGENT_DIR", str(tmp_path / "incoming"))
    return Registry(StateDir.open())


@pytest.fixture
def begin(registry: Registry) -> Callable[[], Handle]:
    return lambda: registry.begin(
        pid=os.getpid(), name="victim", target="root@other", source="src", max_downtime_s=0.3
    )


@dataclass
class Said:
    """What a verb printed, and its exit status."""

    status: int
    out: str
    err: str


Phaul = Callable[..., Said]


@pytest.fixture
def phaul(capsys: pytest.CaptureFixture[str]) -> Phaul:
    """Runs `phaul` with the arguments."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        status = main(arguments)
        return Said(status, *capsys.readouterr())

    return run


DEAD = {"pid": 1, "start": 12345678901, "boot": "another"}
KEY = "0123456789abcdef" * 2


def rewrite(handle: Handle, **changes: object) -> None:
    """Change the entry behind the registry's back."""
    path = handle.directory / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def write_journal(
    handle: Handle, state: SourceState, tree: tuple[Incarnation, ...] = (), *, settled: bool = False
) -> None:
    """The journal of a migration of this very process."""
    root = Incarnation.of(handle.entry.pid)
    assert root is not None
    record = SourceRecord(id=handle.id, key=KEY, state=state, root=root, tree=tree, settled=settled)
    Journal(handle.directory, SourceRecord).write(record, sync=False)


class Running:
    """A migration under way; `late` makes it too late to cancel."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.late = False
        self.max_downtime_s = 0.3

    def cancel(self) -> bool:
        if self.late:
            self.handle.finish(b"{}", fate="runs on other, PID 7")
            return False
        self.handle.finish(Cancelled("cancelled", fate="still running here, PID 4242"))
        return True

    def set_max_downtime(self, seconds: float) -> None:
        self.max_downtime_s = seconds
        self.handle.update(max_downtime_s=seconds)

    def status(self) -> Standing:
        return Standing(
            state=State.PRE_COPY,
            number=1,
            sent_bytes=5 << 20,
            expected_bytes=10 << 20,
            round_s=0.5,
            max_downtime_s=self.max_downtime_s,
        )


@contextmanager
def steered(migration: Running) -> Iterator[None]:
    """The migration listens while the block runs."""
    with start_blocking_portal() as portal:
        future, _ = portal.start_task(serve, migration.handle.socket, migration)
        yield
        future.cancel()


@pytest.fixture
def running(begin: Callable[[], Handle]) -> Iterator[Running]:
    handle = begin()
    handle.update(state=State.PRE_COPY)
    migration = Running(handle)
    with steered(migration):
        yield migration
