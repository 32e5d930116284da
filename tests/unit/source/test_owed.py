"""What phaul has changed for a while is given back, phaul's death included."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from phaul.errors import CgroupError, StateError, SubjectError
from phaul.incarnation import Incarnation
from phaul.source.owed import Owed, Owing, Part, give_back_left
from phaul.storage.aftermath import OWED, is_open
from phaul.subjects.slow import SlowedGroup
from tests.unit.conftest import children
from tests.unit.source.slow import HOME, FakeSlow, record
from tests.unit.subjects.fake_huge import FakeKhugepaged

pytestmark = pytest.mark.anyio


@pytest.fixture
def slow(tmp_path: Path) -> FakeSlow:
    return FakeSlow(os.getpid(), tmp_path / OWED)


@pytest.fixture
def khugepaged(tmp_path: Path) -> FakeKhugepaged:
    return FakeKhugepaged.at(tmp_path / "sys")


def left(file: Path, **changes: object) -> Owed:
    """A record of a phaul that has died, in this boot."""
    me = Incarnation.of(os.getpid())
    assert me is not None
    dead = msgspec.structs.replace(me, start=me.start + 1, **changes)
    group = SlowedGroup(group=HOME, home=HOME, before="max 100000", ours=("1000 20000",))
    found = Owed(phaul=dead, groups=(group,))
    file.write_bytes(msgspec.json.encode(found))
    return found


def test_the_next_phaul_gives_back_what_one_that_died_has_left(slow: FakeSlow) -> None:
    left(slow.file)
    assert give_back_left(slow.file, slow)
    assert slow.done == ["give back"]
    assert not slow.file.exists()
    assert not give_back_left(slow.file, slow)


def test_but_not_before_it_is_dead(slow: FakeSlow) -> None:
    me = Incarnation.of(os.getpid())
    assert me is not None
    slow.file.write_bytes(msgspec.json.encode(Owed(phaul=me, groups=())))
    assert not give_back_left(slow.file, slow)
    assert slow.done == []
    assert give_back_left(slow.file, slow, orphaned=True)


def test_after_a_reboot_there_is_nothing_to_give_back(slow: FakeSlow) -> None:
    left(slow.file, boot="another")
    assert not give_back_left(slow.file, slow)
    assert slow.done == []
    assert not slow.file.exists()


def test_what_fails_stays_written_down(slow: FakeSlow) -> None:
    left(slow.file)
    slow.refuses.add("give")
    with pytest.raises(CgroupError):
        give_back_left(slow.file, slow)
    assert slow.file.exists()


@pytest.mark.parametrize("text", ["", "{}", '{"phaul": 1}', "[" * 100_000])
def test_a_damaged_record_is_said(slow: FakeSlow, text: str) -> None:
    slow.file.write_text(text)
    with pytest.raises(StateError, match=r"owed\.json cannot be read"):
        give_back_left(slow.file, slow)


def test_the_watcher_waits_for_the_end_of_its_pipe(tmp_path: Path) -> None:
    file = tmp_path / OWED
    left(file, boot="another")
    argv = [sys.executable, "-P", "-m", "phaul.source.watcher", str(file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as watcher:
        assert watcher.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            watcher.wait(0.3)
        assert file.exists()
        watcher.stdin.close()
        assert watcher.wait(30) == 0
    assert not file.exists()


async def test_two_parts_have_one_record_and_one_watcher(tmp_path: Path, slow: FakeSlow) -> None:
    before = len(children())
    owing = Owing(tmp_path)
    owing.note(Part.KHUGEPAGED, 10_000)
    group = SlowedGroup(group=HOME, home=HOME, before="max 100000")
    owing.note(Part.GROUPS, (group,))
    assert len(children()) == before + 1
    found = record(slow.file)
    assert (found.groups, found.khugepaged_ms) == ((group,), 10_000)
    owing.settle(Part.GROUPS)
    await owing.done(Part.GROUPS)
    assert is_open(tmp_path), "khugepaged waits"
    assert len(children()) == before + 1
    owing.settle(Part.KHUGEPAGED)
    assert not is_open(tmp_path)
    await owing.done(Part.KHUGEPAGED)
    assert len(children()) == before


def test_khugepaged_goes_on_when_its_phaul_has_died(
    slow: FakeSlow, khugepaged: FakeKhugepaged
) -> None:
    found = left(slow.file)
    khugepaged.wait()
    owed = msgspec.structs.replace(found, groups=(), khugepaged_ms=500)
    slow.file.write_bytes(msgspec.json.encode(owed))
    assert give_back_left(slow.file, slow, khugepaged) == owed
    assert khugepaged.pace() == 500
    assert not slow.file.exists()


def test_what_one_refuses_does_not_keep_the_other(
    slow: FakeSlow, khugepaged: FakeKhugepaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    owed = msgspec.structs.replace(left(slow.file), khugepaged_ms=500)
    slow.file.write_bytes(msgspec.json.encode(owed))

    def refuse(_self: FakeKhugepaged, _pace: int) -> None:
        raise SubjectError("it is refused")

    monkeypatch.setattr(FakeKhugepaged, "resume", refuse)
    with pytest.raises(SubjectError, match="it is refused"):
        give_back_left(slow.file, slow, khugepaged)
    assert slow.done == ["give back"]
    assert slow.file.exists()
