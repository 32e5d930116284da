"""The journals: whole or as before, on the disk when they say so, and believed only if sound."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phaul.cgroups import LockedGroup
from phaul.errors import StateError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState, SourceState
from phaul.storage import journal
from phaul.storage.journal import DestinationRecord, Journal, SourceRecord

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = "0123456789abcdef" * 2
ROOT = Incarnation(pid=4242, start=17, boot="b")
LOCKED = SourceRecord(
    id="k3v9",
    key=KEY,
    state=SourceState.LOCKED,
    root=ROOT,
    tree=(ROOT, Incarnation(pid=4243, start=18, boot="b")),
    groups=(LockedGroup(group="/x/phaul-k3v9.lock", home="/x", pids=(4242, 4243)),),
)
HELD = DestinationRecord(
    id="k3v9",
    key=KEY,
    state=DestinationState.READY,
    source="host1",
    agent=ROOT,
    pid=4242,
    images="images/3",
)


@pytest.fixture
def written(tmp_path: Path) -> Journal[SourceRecord]:
    made = Journal(tmp_path, SourceRecord)
    made.write(LOCKED, sync=True)
    return made


def at(record: SourceRecord, **changes: object) -> SourceRecord:
    return msgspec.structs.replace(record, **changes)


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Journal(tmp_path, SourceRecord).read() is None
    assert Journal(tmp_path / "not there", SourceRecord).read() is None


@pytest.mark.parametrize("sync", [True, False])
def test_what_is_written_is_read(tmp_path: Path, sync: bool) -> None:
    ours, theirs = Journal(tmp_path / "s", SourceRecord), Journal(tmp_path / "d", DestinationRecord)
    (tmp_path / "s").mkdir()
    (tmp_path / "d").mkdir()
    assert ours.read() is None
    one, other = ours.write(LOCKED, sync=sync), theirs.write(HELD, sync=sync)
    assert (ours.read(), theirs.read()) == (one, other)
    assert at(one, written_unix=0.0, serial=0) == LOCKED
    assert one.written_unix > 1e9
    # What is not brought to the disk is beside what was, which a power cut then leaves.
    [made] = ours.path.parent.iterdir()
    assert made.name == ("journal.json" if sync else ".note-journal.json")
    assert made.stat().st_mode & 0o777 == 0o600  # the key is in it


def test_what_is_synced_is_on_the_disk_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)  # noqa: PTH115
        fsync(descriptor)

    def move(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", move)
    made = Journal(tmp_path, SourceRecord)
    made.write(LOCKED, sync=True)
    assert done[0].startswith(".journal.json.")
    assert done[1:] == ["rename", tmp_path.name]
    done.clear()
    made.write(LOCKED, sync=False)
    assert done == ["rename"]
    made.prepare(LOCKED)
    done.clear()
    made.fall_back()
    assert done == ["rename", tmp_path.name]
    made.lay(LOCKED)
    done.clear()
    made.put()
    assert done == [".next-journal.json", "rename", tmp_path.name]
    done.clear()
    made.remove()
    assert done == [tmp_path.name]
    assert made.read() is None


def full(_path: Path, _data: bytes, *, sync: bool = True) -> None:
    raise OSError(28, "No space left on device")


def test_on_a_full_disk_the_old_one_stays(
    written: Journal[SourceRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read()
    monkeypatch.setattr(journal, "write_whole", full)
    with pytest.raises(StateError, match="No space left") as caught:
        written.write(at(LOCKED, state=SourceState.DECIDED), sync=True)
    assert "make room" in caught.value.remedy
    assert written.read() == before


def test_a_full_disk_keeps_nobody_from_falling_back(
    written: Journal[SourceRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    written.prepare(at(LOCKED, state=SourceState.BACK))
    before = written.read()
    assert before is not None
    assert before.state is SourceState.LOCKED  # it is only laid ready
    monkeypatch.setattr(journal, "write_whole", full)
    written.fall_back()
    back = written.read()
    assert back is not None
    assert back.state is SourceState.BACK


@pytest.mark.parametrize("many", [3, 300])
def test_a_note_is_written_anew_where_it_is(
    written: Journal[SourceRecord], tmp_path: Path, many: int
) -> None:
    """As long as it fits into a page; a longer one is replaced, as it could be torn."""
    tree = tuple(Incarnation(pid=pid, start=1 << 40, boot="b") for pid in range(1, many + 1))
    note = tmp_path / ".note-journal.json"
    notes = [at(LOCKED, serial=serial, tree=tree[:left]) for serial, left in ((1, 0), (2, many))]
    files = set()
    for record in (*notes, at(LOCKED, serial=3)):
        assert written.write(record, sync=False) == written.read()
        files.add(note.stat().st_ino)
    assert (len(files) == 1) is (many == 3)
    synced = written.write(at(LOCKED, serial=4), sync=True)
    assert written.read() == synced  # the note is older


def test_what_is_laid_ready_counts_when_it_is_put_in_place(
    written: Journal[SourceRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read()
    laid = written.lay(at(LOCKED, state=SourceState.BACK))
    assert written.read() == before
    monkeypatch.setattr(journal, "write_whole", full)
    written.put()
    assert written.read() == laid
    with pytest.raises(StateError, match="cannot be written"):
        written.put()
    with pytest.raises(StateError, match="No space left"):
        written.lay(laid)
    assert written.read() == laid


def test_nothing_was_laid_ready(written: Journal[SourceRecord]) -> None:
    before = written.read()
    with pytest.raises(StateError, match="cannot be replaced"):
        written.fall_back()
    assert written.read() == before


def test_it_cannot_be_laid_ready_on_a_full_disk(
    written: Journal[SourceRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "write_whole", full)
    with pytest.raises(StateError, match="No space left"):
        written.prepare(LOCKED)


def test_to_remove_one_that_is_gone(tmp_path: Path) -> None:
    Journal(tmp_path, SourceRecord).remove()
    with pytest.raises(StateError, match="cannot be removed"):
        Journal(tmp_path / "not there", SourceRecord).remove()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        msgspec.json.encode(HELD),
        msgspec.json.encode(LOCKED).replace(b'"locked"', b'"lost"'),
        msgspec.json.encode(LOCKED).replace(KEY.encode(), b"short"),
        msgspec.json.encode(LOCKED).replace(b"4242", b"0"),
        msgspec.json.encode(LOCKED).replace(b'"/x"', b'"x"'),
    ],
    ids=lambda data: str(data[:24]),
)
def test_a_damaged_one_is_named(written: Journal[SourceRecord], data: bytes) -> None:
    written.path.write_bytes(data)
    with pytest.raises(StateError, match="damaged") as caught:
        written.read()
    assert str(written.path) in caught.value.what
    assert len(caught.value.what) < 600


@pytest.mark.parametrize(
    "images", ["../x", "images/../../etc", "/images/1", "images/1/2", "images/", "images/1\n"]
)
def test_images_elsewhere_are_not_believed(tmp_path: Path, images: str) -> None:
    made = Journal(tmp_path, DestinationRecord)
    made.write(msgspec.structs.replace(HELD, images=images), sync=True)
    with pytest.raises(StateError, match="damaged"):
        made.read()


def test_one_of_another_form(written: Journal[SourceRecord]) -> None:
    written.write(at(LOCKED, version=2), sync=True)
    with pytest.raises(StateError, match="another form, 2"):
        written.read()


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "large"])
def test_what_is_no_plain_file_of_a_reasonable_size(
    written: Journal[SourceRecord], tmp_path: Path, kind: str
) -> None:
    real = written.path.rename(tmp_path / "elsewhere")
    match kind:
        case "link":
            written.path.symlink_to(real)
        case "fifo":
            os.mkfifo(written.path)
        case "directory":
            written.path.mkdir()
        case "large":
            written.path.write_bytes(b" " * ((4 << 20) + 1))
    with pytest.raises(StateError, match="cannot be read"):
        written.read()


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_torn_one_is_never_read_as_another(
    written: Journal[SourceRecord], data: st.DataObject
) -> None:
    """Cut anywhere it is damaged: half a record is no record."""
    whole = msgspec.json.encode(LOCKED)
    written.path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(StateError):
        written.read()


def test_the_largest_tree_fits(tmp_path: Path) -> None:
    most = 16_384
    pids = range((1 << 22) - most, 1 << 22)
    boot = "01234567-89ab-cdef-0123-456789abcdef"
    tree = tuple(Incarnation(pid=pid, start=1 << 40, boot=boot) for pid in pids)
    group = LockedGroup(group="/a/phaul-x.lock", home="/a", pids=tuple(pids))
    made = Journal(tmp_path, SourceRecord)
    wrote = made.write(at(LOCKED, tree=tree, groups=(group,)), sync=False)
    assert made.read() == wrote
