"""What is written down of migrations: found again, not believed of a dead phaul, not in the way.

The process that is moved is this one here, and so is its phaul.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phaul.errors import Cancelled, OutcomeUnknown, RoundFailed, StateError, UsageError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import SourceState
from phaul.report import Round
from phaul.storage.entry import MOST_ROUNDS, Entry, State
from phaul.storage.journal import Journal, SourceRecord
from phaul.storage.registry import Handle, Registry
from phaul.storage.state_dir import StateDir

pytestmark = pytest.mark.usefixtures("no_leaks")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(StateDir.open(tmp_path / "state"))


def begin(registry: Registry, name: str = "victim") -> Handle:
    return registry.begin(pid=os.getpid(), name=name, target="root@other", max_downtime_s=0.3)


def a_round(number: int) -> Round:
    return Round(
        number=number,
        pages=10,
        shared_pages=1,
        skipped_pages=5,
        frozen_s=0.01,
        seconds=0.5,
        dirty_rate=2.5e6,
        predicted_downtime_s=0.25,
    )


def rewrite(handle: Handle, **changes: object) -> None:
    """Change the file behind the registry's back."""
    path = handle.directory / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def write_journal(handle: Handle, state: SourceState, *, settled: bool = False) -> None:
    record = SourceRecord(
        id=handle.id, key="0" * 32, state=state, root=handle.entry.process, settled=settled
    )
    Journal(handle.directory, SourceRecord).write(record, sync=False)


DEAD = {"pid": 1, "start": 12345678901, "boot": "another"}


def test_a_migration_from_begin_to_end(registry: Registry) -> None:
    handle = begin(registry)
    assert re.fullmatch("[a-z][2-9][a-z][2-9]", handle.id)
    assert handle.directory.stat().st_mode & 0o777 == 0o700
    entry = registry.find(handle.id)
    assert entry == handle.entry
    assert (entry.state, entry.pid, entry.name) == (State.CONNECTING, os.getpid(), "victim")
    assert entry.phaul == Incarnation.of(os.getpid())
    handle.update(state=State.PRE_COPY, source="src", destination="dst", max_downtime_s=1.0)
    handle.update(rounds=[a_round(0)])
    handle.update(rounds=[a_round(0), a_round(1)])
    entry = registry.find(handle.id)
    assert (entry.state, entry.source, entry.destination) == (State.PRE_COPY, "src", "dst")
    assert [(r.number, r.sent_bytes) for r in entry.rounds] == [(0, 11 * 4096), (1, 11 * 4096)]
    assert entry.max_downtime_s == 1.0
    assert not entry.over
    handle.finish(b'{"version": 1}', fate="runs on dst", destination_pid=77)
    entry = registry.find(handle.id)
    assert (entry.state, entry.exit_code, entry.fate) == (State.DONE, 0, "runs on dst")
    assert entry.destination_pid == 77
    assert len(entry.rounds) == 2
    assert registry.report(entry) == b'{"version": 1}'
    assert entry.started_unix <= entry.updated_unix


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (Cancelled("cancelled", fate="here"), State.CANCELLED, 130),
        (RoundFailed("a round failed", fate="here"), State.FAILED, 7),
        (OutcomeUnknown("who knows", fate="here"), State.UNKNOWN, 8),
    ],
)
def test_one_that_fails(
    registry: Registry, error: Cancelled | RoundFailed, state: State, code: int
) -> None:
    handle = begin(registry)
    handle.finish(error)
    handle.update(state=State.PRE_COPY)
    handle.finish(b"{}")
    entry = registry.find(handle.id)
    assert (entry.state, entry.exit_code, entry.fate) == (state, code, "here")
    assert error.what in entry.error
    assert registry.report(entry) is None


def test_sigterm_has_its_own_status(registry: Registry) -> None:
    handle = begin(registry)
    handle.finish(Cancelled("cancelled"), exit_code=143, fate="still running here")
    entry = registry.find(handle.id)
    assert (entry.exit_code, entry.fate) == (143, "still running here")


def test_each_change_is_on_the_disk(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is renamed over another without a sync may be empty after a power cut."""
    handle = begin(registry)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    handle.update(rounds=[a_round(0)], destination="dst")
    assert len(synced) == 2  # the file, and its directory
    handle.update(state=State.CUTOVER)
    assert len(synced) == 4


def test_a_full_disk_ends_no_migration(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = begin(registry)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        handle.update(state=State.PRE_COPY)
        with pytest.raises(StateError, match="No space"):
            begin(registry)
    assert "No space" in caplog.text
    assert [e.state for e in registry.entries()] == [State.CONNECTING]
    handle.update(state=State.CUTOVER)
    assert [e.state for e in registry.entries()] == [State.CUTOVER]


def test_text_that_is_no_unicode_is_written(registry: Registry) -> None:
    handle = begin(registry, "na\udc80me")
    handle.finish(RoundFailed("x" * 10_000 + "\ud800"), fate="\udcff")
    entry = registry.find(handle.id)
    assert (entry.name, entry.fate, len(entry.error)) == ("na?me", "?", 4096)


def test_most_rounds(registry: Registry) -> None:
    handle = begin(registry)
    handle.update(rounds=[a_round(n) for n in range(MOST_ROUNDS + 7)])
    rounds = registry.find(handle.id).rounds
    assert (len(rounds), rounds[-1].number) == (MOST_ROUNDS, MOST_ROUNDS + 6)


def test_a_process_that_is_gone(registry: Registry) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with pytest.raises(StateError, match="/proc"):
        registry.begin(pid=child.pid, name="", target="", max_downtime_s=None)
    assert registry.entries() == ()


def test_a_dead_phaul_s_migration_does_not_run(registry: Registry) -> None:
    handle = begin(registry)
    handle.update(state=State.CUTOVER, rounds=[a_round(0)])
    write_journal(handle, SourceState.LOCKED)
    rewrite(handle, phaul=DEAD)
    entry = registry.find(handle.id)
    assert (entry.state, entry.died_in, entry.exit_code) == (State.UNKNOWN, State.CUTOVER, 8)
    assert "died" in entry.error
    assert len(entry.rounds) == 1


CRASH = """
import os, sys
from pathlib import Path
from phaul.storage.entry import State
from phaul.storage.registry import Registry
from phaul.storage.state_dir import StateDir
handle = Registry(StateDir.open(Path(sys.argv[1]))).begin(
    pid=os.getppid(), name="victim", target="there", max_downtime_s=None
)
handle.update(state=State.PRE_COPY)
print(handle.id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_phaul_that_is_killed(registry: Registry, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path / "state")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9
    entry = registry.find("last")
    assert entry.id == killed.stdout.strip()
    assert (entry.state, entry.died_in) == (State.FAILED, State.PRE_COPY)
    assert entry.exit_code == 7


def test_one_that_was_over_stays_so(registry: Registry) -> None:
    handle = begin(registry)
    handle.finish(b"{}")
    rewrite(handle, phaul=DEAD, died_in="cutover")
    entry = registry.find(handle.id)
    assert (entry.state, entry.died_in) == (State.DONE, None)


def test_one_that_ends_while_it_is_looked_at(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = begin(registry)

    def gone(_self: Incarnation) -> bool:
        handle.finish(b"{}")
        return False

    monkeypatch.setattr(Incarnation, "alive", gone)
    assert registry.find(handle.id).state is State.DONE


def test_find(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("last", "a2", ""):
        with pytest.raises(UsageError, match="there is no migration"):
            registry.find(name)
    choices = iter("a2b3" + "a2c3")
    monkeypatch.setattr("secrets.choice", lambda _of: next(choices))
    first, second = begin(registry), begin(registry)
    rewrite(first, started_unix=1.0)
    assert registry.find().id == registry.find("last").id == second.id == "a2c3"
    assert registry.find("a2b").id == first.id
    for name in ("a2b3x", "../a2b3", "", "b3", "a2b3/"):
        with pytest.raises(UsageError, match="there is no migration"):
            registry.find(name)
    with pytest.raises(UsageError, match="several migrations: a2c3, a2b3"):
        registry.find("a2")


def test_an_id_is_never_given_twice(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = begin(registry)
    choices = iter(taken.id + "x9y8")
    monkeypatch.setattr("secrets.choice", lambda _of: next(choices))
    assert begin(registry).id == "x9y8"


def test_where_ids_are_rare_they_become_longer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.choice", lambda of: of[0])
    assert [begin(registry).id for _ in range(2)] == ["a2a2", "a2a2a2a2"]
    with pytest.raises(StateError, match="no id is free"):
        begin(registry)


def test_what_is_foreign_is_left_alone(registry: Registry) -> None:
    handle = begin(registry)
    base = handle.directory.parent
    (base / "README").write_text("hello")
    (base / "a file").write_text("hello")
    (base / "x1").write_text("a file with the name of a migration")
    (base / "UPPER").mkdir()
    (base / "c3c3").symlink_to(handle.directory)
    (base / "..d").mkdir()
    registry.prune(0)
    entries, damaged = registry.scan()
    assert [e.id for e in entries] == [handle.id]
    assert [d.id for d in damaged] == ["x1"]
    assert len(list(base.iterdir())) == 7


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "truncated"),
        (b"\x00" * 100, "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field"),
        (b'{"version": 2}', "another phaul, in version 2"),
        (b'{"version": 1}', "missing required field"),
        (b'{"version": "\xff"}', ""),
        (b"[" * 100_000, ""),
        (b'"' + b"x" * (2 << 20) + b'"', "more than"),
    ],
)
def test_a_damaged_entry_is_named_and_the_rest_listed(
    registry: Registry, content: bytes, why: str
) -> None:
    good, bad = begin(registry), begin(registry)
    (bad.directory / "entry.json").write_bytes(content)
    entries, damaged = registry.scan()
    assert [e.id for e in entries] == [good.id]
    assert [d.id for d in damaged] == [bad.id]
    assert why in damaged[0].why
    assert 0 < len(damaged[0].why) <= 200
    with pytest.raises(StateError, match="damaged"):
        registry.find(bad.id)
    registry.prune(0)
    assert bad.directory.exists()


def test_an_entry_that_is_no_file(registry: Registry) -> None:
    link, fifo, folder, foreign = (begin(registry) for _ in range(4))
    good = begin(registry)
    for handle in (link, fifo, folder):
        (handle.directory / "entry.json").unlink()
    (link.directory / "entry.json").symlink_to(good.directory / "entry.json")
    os.mkfifo(fifo.directory / "entry.json")
    (folder.directory / "entry.json").mkdir()
    (foreign.directory / "entry.json").write_bytes((good.directory / "entry.json").read_bytes())
    entries, damaged = registry.scan()
    assert [e.id for e in entries] == [good.id]
    assert {d.id for d in damaged} == {h.id for h in (link, fifo, folder, foreign)}


def test_a_report_that_cannot_be_read(registry: Registry) -> None:
    handle = begin(registry)
    handle.finish(b"{}")
    (handle.directory / "report.json").unlink()
    (handle.directory / "report.json").mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        registry.report(handle.entry)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    how=st.sampled_from(["cut", "flip", "insert", "replace"]),
    where=st.integers(0, 1 << 16),
    data=st.binary(min_size=1, max_size=200),
)
def test_a_damaged_file_never_breaks_the_list(
    registry: Registry, how: str, where: int, data: bytes
) -> None:
    for old in registry.entries():
        registry.socket(old).with_name("entry.json").unlink()
    handle = begin(registry)
    path = handle.directory / "entry.json"
    content = bytearray(path.read_bytes())
    at = where % len(content)
    match how:
        case "cut":
            del content[at:]
        case "flip":
            content[at] ^= data[0]
        case "insert":
            content[at:at] = data[:20]
        case _:
            content[:] = data
    path.write_bytes(content)
    entries, damaged = registry.scan()
    found = [e.id for e in entries] + [d.id for d in damaged]
    assert handle.id in found
    for entry in entries:
        msgspec.json.decode(msgspec.json.encode(entry), type=Entry)


def test_nothing_there_yet(tmp_path: Path) -> None:
    registry = Registry(StateDir.open(tmp_path / "state", make=False))
    assert registry.scan() == ((), ())
    assert registry.prune(0) == ()
    assert not (tmp_path / "state").exists()
