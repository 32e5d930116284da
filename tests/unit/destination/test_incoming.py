import fcntl
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest

from phaul.cgroups import Cgroups, LockedGroup
from phaul.destination.incoming import Incoming, Keeping, keeps, lost
from phaul.errors import WorkDirError
from phaul.incarnation import Incarnation
from phaul.protocol.ownership import DestinationState
from tests.unit.destination.dead import left_behind
from tests.unit.fake_cgroups import FakeCgroups

HOME, CAGE, CAGED = "/a", "/a/phaul-m0.cage", 2001


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroups:
    """A process in a cage."""
    (tmp_path / "kernel").mkdir()
    found = FakeCgroups.at(tmp_path / "kernel")
    found.process(CAGED, CAGE)
    monkeypatch.setattr(Cgroups, "find", lambda *_: found)
    return found


def caged(base: Path, state: DestinationState, **changes: object) -> Path:
    """What a dead agent has left, with a cage."""
    journal = left_behind(base, state)
    record = journal.read()
    assert record is not None
    cage = (LockedGroup(group=CAGE, home=HOME, pids=()),)
    there = msgspec.structs.replace(record, cage=cage, serial=record.serial + 1, **changes)
    journal.path.write_bytes(msgspec.json.encode(there))
    return journal.path.parent


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    incoming = Incoming.make(tmp_path / "base", "m1")
    assert incoming.path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "base").stat().st_mode & 0o777 == 0o700
    (incoming.path / "images").mkdir()
    incoming.close()
    assert list((tmp_path / "base").iterdir()) == []
    incoming.close()


def test_what_is_kept_says_why(tmp_path: Path) -> None:
    incoming = Incoming.make(tmp_path, "m1")
    incoming.keep("the source's last word got lost")
    incoming.close()
    assert "last word" in (incoming.path / "KEEP").read_text()


def test_two_of_one_migration_do_not_meet(tmp_path: Path) -> None:
    first, second = Incoming.make(tmp_path, "m1"), Incoming.make(tmp_path, "m1")
    assert first.path != second.path
    first.close()
    assert second.path.exists()
    second.close()


@pytest.mark.parametrize("mode", [0o722, 0o777, 0o720])
def test_a_place_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(WorkDirError, match="others"):
        Incoming.make(tmp_path, "m1", "host2")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(WorkDirError):
        Incoming.make(tmp_path / "link", "m1")


class TestStale:
    """What a killed agent has left."""

    @staticmethod
    def old(path: Path) -> None:
        then = time.time() - 3600
        os.utime(path, (then, then))

    def test_is_removed(self, tmp_path: Path) -> None:
        stale = tmp_path / "m0-1"
        (stale / "images").mkdir(parents=True)
        self.old(stale)
        Incoming.make(tmp_path, "m1").close()
        assert not stale.exists()

    def test_but_not_what_is_kept(self, tmp_path: Path) -> None:
        kept = tmp_path / "m0-1"
        kept.mkdir()
        (kept / "KEEP").touch()
        self.old(kept)
        Incoming.make(tmp_path, "m1").close()
        assert kept.exists()

    def test_nor_what_an_agent_has_that_lives(self, tmp_path: Path) -> None:
        living = Incoming.make(tmp_path, "m0")
        self.old(living.path)
        Incoming.make(tmp_path, "m1").close()
        assert living.path.exists()
        living.close()

    def test_nor_what_has_just_been_made(self, tmp_path: Path) -> None:
        (tmp_path / "m0-1").mkdir()
        Incoming.make(tmp_path, "m1").close()
        assert (tmp_path / "m0-1").exists()

    @pytest.mark.parametrize(
        ("was", "days", "stays"),
        [
            (DestinationState.RECEIVING, 0, False),
            (DestinationState.RESTORING, 0, False),
            (DestinationState.READY, 400, True),
            (DestinationState.RELEASING, 400, True),
            (DestinationState.IMAGES, 400, True),
            (DestinationState.AGAIN, 400, True),
            (DestinationState.RUNNING, 6, True),
            (DestinationState.RUNNING, 8, False),
            (DestinationState.DISCARDED, 0, False),
        ],
    )
    def test_by_what_its_journal_says(
        self, tmp_path: Path, was: DestinationState, days: float, stays: bool
    ) -> None:
        """What the process may have to go on from stays; that it runs is known for a week."""
        journal = left_behind(tmp_path, was)
        record = journal.read()
        assert record is not None
        then = time.time() - days * 86_400
        old = msgspec.structs.replace(record, written_unix=then, serial=record.serial + 1)
        journal.path.write_bytes(msgspec.json.encode(old))
        self.old(journal.path.parent)
        Incoming.make(tmp_path, "m1").close()
        assert journal.path.exists() is stays

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("was", list(DestinationState))
    def test_and_its_cage(
        self, tmp_path: Path, cgroups: FakeCgroups, was: DestinationState, known: bool
    ) -> None:
        """What CRIU has left is ended, what runs is let out; what is owed is for who settles it."""
        base = tmp_path / "base"
        path = caged(base, was, written_unix=time.time() if known else 1.0)
        self.old(path)
        Incoming.make(base, "m1").close()
        runs = was is DestinationState.RUNNING
        assert path.exists() is (was.owed or (runs and known))
        where = HOME if runs else None if was.gives_up else CAGE
        assert cgroups.group_of(CAGED) == where
        assert cgroups.exists(CAGE) is (where == CAGE)

    def test_a_cage_that_cannot_be_left_is_tried_again(
        self, tmp_path: Path, cgroups: FakeCgroups
    ) -> None:
        base = tmp_path / "base"
        caged(base, DestinationState.RUNNING)
        cgroups.refuses.add(HOME)
        Incoming.make(base, "m1").close()
        assert cgroups.group_of(CAGED) == CAGE
        cgroups.refuses.clear()
        Incoming.make(base, "m1").close()
        assert cgroups.group_of(CAGED) == HOME

    def test_but_not_the_cage_of_an_agent_that_lives(
        self, tmp_path: Path, cgroups: FakeCgroups
    ) -> None:
        living = Incoming.take_over(caged(tmp_path / "base", DestinationState.RUNNING))
        assert living is not None
        Incoming.make(tmp_path / "base", "m1").close()
        assert cgroups.group_of(CAGED) == CAGE
        living.close()

    def test_what_runs_and_is_kept_is_in_no_cage(
        self, tmp_path: Path, cgroups: FakeCgroups
    ) -> None:
        path = caged(tmp_path / "base", DestinationState.RUNNING)
        (path / "KEEP").touch()
        Incoming.make(tmp_path / "base", "m1").close()
        assert cgroups.group_of(CAGED) == HOME
        assert not cgroups.exists(CAGE)
        assert (path / "images/0").is_dir()

    def test_nor_what_has_a_damaged_journal(self, tmp_path: Path) -> None:
        journal = left_behind(tmp_path, DestinationState.RECEIVING)
        journal.path.write_text("{")
        self.old(journal.path.parent)
        Incoming.make(tmp_path, "m1").close()
        assert journal.path.exists()


def test_one_that_is_left_is_taken_over_once(tmp_path: Path) -> None:
    path = left_behind(tmp_path, DestinationState.READY).path.parent
    taken = Incoming.take_over(path)
    assert taken is not None
    assert Incoming.take_over(path) is None
    taken.stay()
    taken.close()
    again = Incoming.take_over(path)
    assert again is not None
    again.close()
    assert not path.exists()


def test_one_is_made_while_another_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who removes what is left, or lists what came here, tries each lock, also a fresh one's."""
    mkdir = Path.mkdir

    def looked_at(path: Path, mode: int = 0o777, **options: bool) -> None:
        mkdir(path, mode, **options)
        if path.parent == tmp_path:
            held = os.open(path, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
            threading.Timer(0.05, os.close, (held,)).start()

    monkeypatch.setattr(Path, "mkdir", looked_at)
    Incoming.make(tmp_path, "m1").close()
    assert list(tmp_path.iterdir()) == []


class TestKeeping:
    """What a keeper needs is there, and removed by who is the last."""

    @staticmethod
    def leave(path: Path, *, told: bool = False, failed: str = "") -> None:
        with Keeping.begin(path) as keeping:
            keeping.leave(told=told, failed=failed)

    def test_while_it_lives(self, tmp_path: Path) -> None:
        path = left_behind(tmp_path, DestinationState.RUNNING).path.parent
        os.utime(path, (0, 0))
        assert not keeps(path)
        with Keeping.begin(path):
            assert keeps(path)
            assert keeps(path)
            Incoming.make(tmp_path, "m2").close()
            assert (path / "images/0").is_dir()
        assert not keeps(path)
        Incoming.make(tmp_path, "m2").close()
        assert not (path / "images").exists()

    @pytest.mark.parametrize(
        ("state", "told", "left"),
        [
            (DestinationState.RUNNING, True, None),
            (DestinationState.RUNNING, False, {"journal.json"}),
            (DestinationState.READY, False, {"journal.json", "images"}),
            (DestinationState.RELEASING, False, {"journal.json", "images"}),
            (DestinationState.IMAGES, False, {"journal.json", "images"}),
            (DestinationState.RESTORING, False, {"journal.json", "images"}),
        ],
    )
    def test_all_is_in(
        self,
        tmp_path: Path,
        state: DestinationState,
        told: bool,
        left: set[str] | None,
    ) -> None:
        path = left_behind(tmp_path, state).path.parent
        self.leave(path, told=told)
        found = {"journal.json" if "journal" in p.name else p.name for p in path.glob("*")}
        assert found == (left or set())
        assert path.exists() == (left is not None)

    def test_memory_of_a_copy_that_another_took_the_place_of(self, tmp_path: Path) -> None:
        """What was restored since in its place has not lost any."""
        now, before = (Incarnation(pid=7, start=start, boot="b") for start in (20, 10))
        path = left_behind(tmp_path, DestinationState.RUNNING, root=now).path.parent
        with Keeping.begin(path) as keeping:
            keeping.leave(told=False, failed="no page", root=before)
        assert not lost(path)
        assert not (path / "KEEP").exists()
        assert not (path / "images").exists()
        with Keeping.begin(path) as keeping:
            keeping.leave(told=False, failed="no page", root=now)
        assert lost(path) == "no page"

    @pytest.mark.parametrize(
        "state", [DestinationState.IMAGES, DestinationState.AGAIN, DestinationState.READY]
    )
    def test_who_restores_it_again_does_not_wait_for_a_keeper(
        self, tmp_path: Path, state: DestinationState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor does that wait for the one who restores it: it ends while that has the directory."""
        monkeypatch.setattr("phaul.destination.incoming._AGENT_ENDS_S", 3600.0)
        now, before = (Incarnation(pid=7, start=start, boot="b") for start in (20, 10))
        path = left_behind(tmp_path, state, root=now).path.parent
        agent = Incoming.take_over(path)
        assert agent is not None
        with Keeping.begin(path) as keeping:
            keeping.leave(told=False, failed="no page", root=before)
        assert not keeps(path)
        assert (path / "images/0").is_dir()
        agent.close()

    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize("failed", ["", "no page"])
    def test_what_runs_is_let_out_of_a_dead_agents_cage(
        self, tmp_path: Path, cgroups: FakeCgroups, told: bool, failed: str
    ) -> None:
        path = caged(tmp_path / "base", DestinationState.RUNNING)
        self.leave(path, told=told, failed=failed)
        assert cgroups.group_of(CAGED) == HOME
        assert not cgroups.exists(CAGE)

    def test_nothing_is_owed_without_a_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "m"
        path.mkdir()
        self.leave(path)
        assert not path.exists()

    @pytest.mark.parametrize("state", [DestinationState.RUNNING, DestinationState.READY])
    def test_memory_that_did_not_come(self, tmp_path: Path, state: DestinationState) -> None:
        """If it ran, people have to look at it; else its images are good."""
        path = left_behind(tmp_path, state).path.parent
        self.leave(path, failed="no page")
        assert (path / "images/0").is_dir()
        assert (path / "KEEP").exists() == (state is DestinationState.RUNNING)

    def test_what_was_asked_to_be_kept(self, tmp_path: Path) -> None:
        path = left_behind(tmp_path, DestinationState.RUNNING).path.parent
        (path / "KEEP").touch()
        self.leave(path, told=True)
        assert (path / "images/0").is_dir()
