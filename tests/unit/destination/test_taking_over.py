"""What a later connection makes of what a dead agent has left."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from phaul.destination import durability
from phaul.destination.copy import HeldCopy
from phaul.destination.incoming import Incoming
from phaul.errors import CriuError, PhaulError
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m
from phaul.protocol.ownership import DestinationState
from phaul.protocol.settlement import Copy
from phaul.storage.journal import DestinationRecord
from tests.unit.conftest import Fake, running
from tests.unit.destination.dead import left_behind
from tests.unit.destination.talk import later
from tests.unit.destination.test_settling import directories, ended
from tests.unit.scenario import Fault, Restore

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
OTHER = "0" * 32


D = DestinationState


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.fixture
def copy(victim: "subprocess.Popen[bytes]") -> Incarnation:
    """A process for a copy's root."""
    found = Incarnation.of(victim.pid)
    assert found is not None
    return found


class TestDead:
    """Its agent is dead: what it left is taken over by what its journal says."""

    @pytest.mark.parametrize(
        ("was", "found"),
        [
            (D.RECEIVING, Copy.BEGUN),
            (D.RESTORING, Copy.BEGUN),
            (D.READY, Copy.IMAGES),
            (D.AGAIN, Copy.IMAGES),
            (D.IMAGES, Copy.IMAGES),
            (D.RELEASING, Copy.UNSURE),
            (D.RUNNING, Copy.RUNNING),
            (D.DISCARDED, Copy.NOTHING),
        ],
    )
    async def test_by_each_state(self, fake: Fake, base: Path, was: D, found: Copy) -> None:
        journal = left_behind(base, was)
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is found
            with suppress(PhaulError):
                await settler.call(m.Bye())
        if found in (Copy.BEGUN, Copy.NOTHING):
            assert directories(base) == []
            return
        # Who only looked makes nobody forget.
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is found
        assert journal.read() is not None

    @pytest.mark.parametrize("was", [D.READY, D.RELEASING, D.AGAIN, D.RECEIVING])
    async def test_what_is_left_of_the_copy_is_ended(
        self, fake: Fake, base: Path, copy: Incarnation, was: D
    ) -> None:
        left_behind(base, was, root=copy)
        os.kill(copy.pid, signal.SIGSTOP)
        async with later(fake, base) as settler:
            await settler.ask()
            await ended(copy.pid)

    async def test_one_that_was_let_go_and_runs(
        self, fake: Fake, base: Path, copy: Incarnation
    ) -> None:
        """CRIU had written its statistics, the agent had not come to write it down."""
        journal = left_behind(base, D.RELEASING, root=copy)
        (journal.path.parent / "images/0/stats-restore").touch()
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is Copy.RUNNING
            assert await settler.call(m.Commit()) == m.Running()
            await settler.call(m.Bye())
        assert running(copy.pid)
        assert directories(base) == []

    @pytest.mark.parametrize("was", [D.READY, D.IMAGES])
    async def test_what_is_told_of_is_on_the_disk_before(
        self, fake: Fake, base: Path, was: D, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By it the source may end what it has; and then this host may lose power."""
        synced: list[str] = []
        monkeypatch.setattr(durability, "sync_entry", lambda path: synced.append(path.name))
        journal = left_behind(base, was)  # a note only
        (journal.path.parent / "images/1").mkdir()
        async with later(fake, base) as settler:
            await settler.ask()
            assert "inventory.img" in synced
            assert "1" in synced
            record = msgspec.json.decode(journal.path.read_bytes(), type=DestinationRecord)
            assert (record.state, record.durable) == (D.IMAGES, True)

    async def test_restored_and_let_go(self, fake: Fake, base: Path) -> None:
        journal = left_behind(base, D.READY)
        async with later(fake, base) as settler:
            await settler.ask()
            ready = await settler.call(m.Recover())
            assert isinstance(ready, m.Ready)
            record = journal.read()
            assert record is not None
            assert (record.state, record.pid) == (D.READY, ready.pid)
            assert record.agent == Incarnation.of(os.getpid())  # who may be ended, if it hangs
            await settler.call(m.Commit())
            await settler.call(m.Bye())
        assert running(ready.pid)
        assert directories(base) == []

    async def test_while_it_is_restored_the_journal_says_so(
        self, fake: Fake, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that what is half restored is ended if this agent dies too."""
        journal = left_behind(base, D.IMAGES)
        seen: list[DestinationState] = []
        restore = HeldCopy.restore

        async def look(*arguments: object, **named: object) -> object:
            record = journal.read()
            assert record is not None
            seen.append(record.state)
            return await restore(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(HeldCopy, "restore", look)
        async with later(fake, base) as settler:
            await settler.ask()
            await settler.call(m.Recover())
            await settler.call(m.Discard())
            await settler.call(m.Bye())
        assert seen == [D.AGAIN]

    async def test_a_restore_that_fails_keeps_the_images(self, fake: Fake, base: Path) -> None:
        journal = left_behind(base, D.IMAGES)
        fake.play(restore=Restore(fault=Fault(kind="fail", log="Error (y.c:2): no such file\n")))
        async with later(fake, base) as settler:
            await settler.ask()
            with pytest.raises(CriuError, match="no such file"):
                await settler.call(m.Recover())
            assert (await settler.ask()).copy is Copy.IMAGES
            await settler.call(m.Bye())
        record = journal.read()
        assert record is not None
        assert record.state is D.IMAGES
        assert (journal.path.parent / "images/0/inventory.img").exists()

    async def test_the_link_is_lost_again_when_it_is_held(self, fake: Fake, base: Path) -> None:
        """A third connection finds the agent of the second, which holds the copy."""
        left_behind(base, D.IMAGES)
        async with later(fake, base) as settler:
            await settler.ask()
            ready = await settler.call(m.Recover())
            assert isinstance(ready, m.Ready)
            await settler.source.aclose()
            async with later(fake, base) as third:
                standing = await third.ask()
                assert (standing.copy, standing.pid) == (Copy.HELD, ready.pid)
                await third.call(m.Commit())
                await third.call(m.Bye())
        assert running(ready.pid)
        assert directories(base) == []

    async def test_without_images_nothing_is_restored(self, fake: Fake, base: Path) -> None:
        left_behind(base, D.READY, images=False)
        async with later(fake, base) as settler:
            await settler.ask()
            with pytest.raises(PhaulError, match="no images"):
                await settler.call(m.Recover())
            await settler.call(m.Discard())

    async def test_a_journal_without_its_directory_is_nothing(
        self, fake: Fake, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its agent has removed it between the look and the grasp."""
        left_behind(base, D.READY)

        def gone(path: Path) -> Incoming:
            raise FileNotFoundError(path)

        monkeypatch.setattr(Incoming, "take_over", gone)
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is Copy.NOTHING

    async def test_one_that_was_just_given_up_is_nothing(
        self, fake: Fake, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = left_behind(base, D.READY)
        take = Incoming.take_over

        def forgotten(path: Path) -> Incoming | None:
            journal.remove()
            return take(path)

        monkeypatch.setattr(Incoming, "take_over", forgotten)
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is Copy.NOTHING
        assert directories(base) == []
