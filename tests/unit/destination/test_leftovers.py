"""What became of a copy whose agent is dead."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import anyio
import msgspec
import pytest

from phaul.config import Config
from phaul.destination.incoming import Incoming, Keeping
from phaul.destination.leftovers import end_copy, leave_memory, runs
from phaul.destination.session import DestinationSession
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState
from phaul.storage.journal import DestinationRecord
from phaul.subjects.proc import Proc, Stat
from tests.unit.conftest import running, state
from tests.unit.destination.dead import left_behind

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def record(tmp_path: Path, victim: "subprocess.Popen[bytes]") -> DestinationRecord:
    root = Incarnation.of(victim.pid)
    journal = left_behind(tmp_path / "in", DestinationState.READY, root=root, pids=(victim.pid,))
    found = journal.read()
    assert found is not None
    return found


async def test_a_held_copy_is_ended(record: DestinationRecord) -> None:
    assert record.root is not None
    os.kill(record.root.pid, signal.SIGSTOP)
    await end_copy(record)
    assert state(record.root.pid) in {"", "Z"}
    await end_copy(record)


async def test_another_process_with_that_pid_is_left_alone(record: DestinationRecord) -> None:
    assert record.root is not None
    root = Incarnation(pid=record.root.pid, start=1, boot=record.root.boot)
    await end_copy(msgspec.structs.replace(record, root=root))
    assert running(record.root.pid)


async def test_without_a_root_there_is_nothing_to_end(record: DestinationRecord) -> None:
    await end_copy(msgspec.structs.replace(record, root=None))


async def test_what_stands_still_does_not_run(record: DestinationRecord, tmp_path: Path) -> None:
    assert record.root is not None
    os.kill(record.root.pid, signal.SIGSTOP)
    while ") T " not in Path(f"/proc/{record.root.pid}/stat").read_text():
        await anyio.sleep(0.01)
    assert not await runs(record, tmp_path)
    (tmp_path / "stats-restore").touch()
    assert await runs(record, tmp_path)  # CRIU had let it go before
    os.kill(record.root.pid, signal.SIGKILL)
    await end_copy(record)
    assert not await runs(record, tmp_path)


@pytest.mark.parametrize("sign", ["Restoring FAILED", "SIGKILL", "exiting"])
async def test_what_criu_has_given_up_does_not_run(
    record: DestinationRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    """It writes its statistics then too, and what it killed is there for a moment still."""
    (tmp_path / "stats-restore").touch()
    assert await runs(record, tmp_path)
    if sign == "Restoring FAILED":
        (tmp_path / "restore.log").write_text(f"Error (criu/cr-restore.c:2311): {sign}.\n")
    else:
        process = Proc.process

        def dying(self: Proc, pid: int) -> Stat | None:
            found = process(self, pid)
            if found is None:
                return None
            return replace(found, pending=256) if sign == "SIGKILL" else replace(found, flags=4)

        monkeypatch.setattr(Proc, "process", dying)
    assert not await runs(record, tmp_path)


async def test_a_copy_that_has_all_its_memory_needs_no_keeper_s_images(tmp_path: Path) -> None:
    """Also while the keeper of a copy that was given up has not ended."""
    incoming = Incoming.make(tmp_path, "m")
    config = Config(memory_fd=0, work_dir=incoming.images)
    with Keeping.begin(incoming.path):
        assert not await leave_memory(DestinationSession(config), incoming, told=True)
        assert await leave_memory(None, incoming, told=True), "who takes over knows only the lock"
    incoming.close()
    assert not incoming.path.exists()
