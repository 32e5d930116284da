"""A tree that the source kills by itself, before CRIU would."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phaul.errors import CgroupError, OutcomeUnknown
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.source import ownership as module
from phaul.source.ownership import Ledger, Ownership
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.process import examine
from tests.unit.conftest import running
from tests.unit.source.stopping import Lock, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


async def decided(
    tree: "subprocess.Popen[bytes]", ledger: Ledger, *, second_lock: bool
) -> Ownership:
    made = Ownership(examine(tree.pid), ledger, second_lock=second_lock)
    made.freeze()
    await made.lock()
    made.decide()
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Journal(tmp_path, SourceRecord), "k3v9", "0123456789abcdef" * 2)


@pytest.fixture
def lock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Lock:
    made = Lock(ledger.journal)
    monkeypatch.setattr(module, "TreeLock", lambda: made)
    return made


@pytest.mark.parametrize("second_lock", [True, False])
async def test_it_is_dead_before_its_lock_is_removed(
    second_lock: bool, tree: "subprocess.Popen[bytes]", ledger: Ledger, lock: Lock
) -> None:
    made = await decided(tree, ledger, second_lock=second_lock)
    await made.kill()
    assert made.state is SourceState.GONE
    until(lambda: not running(tree.pid))
    await made.tidy()
    assert [step for step, _ in lock.done[2:]] == ["send_kill", "kill"] * second_lock


async def test_where_the_kernel_kills_no_group_each_gets_its_own(
    tree: "subprocess.Popen[bytes]", ledger: Ledger, lock: Lock
) -> None:
    made = await decided(tree, ledger, second_lock=True)
    lock.fails["send_kill"] = CgroupError("no such kernel")
    await made.kill()
    assert made.state is SourceState.GONE
    until(lambda: not running(tree.pid))


async def test_what_does_not_die_by_us_is_killed_by_the_lock(
    tree: "subprocess.Popen[bytes]",
    ledger: Ledger,
    lock: Lock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await decided(tree, ledger, second_lock=True)
    monkeypatch.setattr(Incarnation, "signal", lambda *_: False)
    lock.fails |= dict.fromkeys(("send_kill", "kill"), CgroupError("it does not die"))
    with pytest.raises(OutcomeUnknown, match="cannot be killed: it does not die"):
        await made.kill()
    lock.fails.clear()
    await made.kill()
    assert made.state is SourceState.GONE
