"""What is forgotten of past migrations, and what never is."""

import os
from pathlib import Path

import pytest

from phaul.errors import OutcomeUnknown, RoundFailed
from phaul.protocol.ownership import SourceState
from phaul.storage.entry import State
from phaul.storage.registry import Registry
from phaul.storage.state_dir import StateDir
from tests.unit.storage.test_registry import DEAD, begin, rewrite, write_journal

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(StateDir.open(tmp_path / "state"))


def test_prune(registry: Registry) -> None:
    running, done, failed, unknown, torn, early, open_ = (begin(registry) for _ in range(7))
    for age, handle in enumerate((done, failed, unknown)):
        handle.finish(OutcomeUnknown("?") if handle is unknown else b"{}")
        rewrite(handle, started_unix=float(age))
    torn.update(state=State.CUTOVER)
    early.update(state=State.PRE_COPY)
    write_journal(torn, SourceState.DECIDED)
    open_.finish(RoundFailed("no"))
    write_journal(open_, SourceState.BACK)  # there may be a copy over there
    for handle in (torn, early, open_):
        rewrite(handle, phaul=DEAD, started_unix=-1.0)
    assert set(registry.prune(1)) == {done.id, early.id}
    assert {e.id for e in registry.entries()} == {
        running.id, failed.id, unknown.id, torn.id, open_.id
    }  # fmt: skip
    assert registry.prune(0) == (failed.id,)
    assert registry.prune(0) == ()
    write_journal(open_, SourceState.BACK, settled=True)
    assert registry.prune(0) == (open_.id,)
    assert not done.directory.exists()


def test_prune_sweeps_what_was_half_made(registry: Registry) -> None:
    base = begin(registry).directory.parent
    for name in ("a2a2", "b2b2"):
        (base / name).mkdir()
    os.utime(base / "a2a2", (0, 0))
    registry.prune(10)
    assert not (base / "a2a2").exists()
    assert (base / "b2b2").exists()
    assert registry.scan().damaged == ()
