"""What a later connection finds, and can do: of an agent that lives, is dead, or hangs."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from phaul.destination import settling
from phaul.destination.incoming import Incoming
from phaul.destination.session import DestinationSession
from phaul.errors import (
    CriuError,
    PageStoreError,
    PhaulError,
    ProtocolError,
    StateError,
    UsageError,
)
from phaul.incarnation import Incarnation
from phaul.protocol import messages as m
from phaul.protocol.ownership import DestinationState
from phaul.protocol.settlement import Copy
from phaul.storage import journal
from phaul.storage.state_dir import write_whole
from tests.unit.conftest import Fake, running, state
from tests.unit.destination.dead import left_behind
from tests.unit.destination.talk import LIMIT, Talk, later, talk
from tests.unit.protocol.samples import HELLO, KEY
from tests.unit.scenario import Fault, Restore

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]
OTHER = "0" * 32


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "in"


async def hold(both: Talk, folder: Path, *, lease_s: int = 600) -> int:
    """Bring the agent to Ready; returns the copy's PID."""
    await both.prepare(lease_s=lease_s)
    await both.round()
    return await both.restore(folder)


def directories(base: Path) -> list[Path]:
    return list(base.iterdir()) if base.exists() else []


async def ended(pid: int) -> None:
    with anyio.fail_after(LIMIT):
        while state(pid) not in {"", "Z"}:
            await anyio.sleep(0.01)


class TestLiving:
    """Its agent lives: what is asked is handed on to it."""

    async def test_a_held_copy_is_let_go(self, fake: Fake, base: Path, tmp_path: Path) -> None:
        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path)
            await both.source.aclose()  # the link is lost
            async with later(fake, base) as settler:
                standing = await settler.ask()
                assert (standing.copy, standing.pid) == (Copy.HELD, pid)
                assert Path(standing.path).parent == base
                assert await settler.call(m.Commit()) == m.Running()
                assert await settler.call(m.Commit()) == m.Running()  # its answer was lost
                assert (await settler.ask()).copy is Copy.RUNNING
                await settler.call(m.Bye())
        assert running(pid)
        assert directories(base) == []

    async def test_a_held_copy_is_given_up(self, fake: Fake, base: Path, tmp_path: Path) -> None:
        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path)
            await both.source.aclose()
            async with later(fake, base) as settler:
                await settler.ask()
                assert await settler.call(m.Discard()) == m.Done()
                assert await settler.call(m.Discard()) == m.Done()
                assert (await settler.ask()).copy is Copy.NOTHING
                with pytest.raises(ProtocolError):
                    await settler.call(m.Commit())
                await settler.call(m.Bye())
        await ended(pid)
        assert directories(base) == []

    async def test_to_look_changes_nothing(self, fake: Fake, base: Path, tmp_path: Path) -> None:
        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path)
            await both.source.aclose()
            for _ in range(2):
                async with later(fake, base) as settler:
                    assert (await settler.ask()).copy is Copy.HELD
                    await settler.call(m.Bye())
            assert running(pid)
            async with later(fake, base) as settler:
                await settler.ask()
                await settler.call(m.Discard())
                await settler.call(m.Bye())

    async def test_to_look_at_one_that_runs_makes_nobody_forget_it(
        self, fake: Fake, base: Path, tmp_path: Path
    ) -> None:
        """The source has not heard Running yet; who looks does not write it down."""
        async with talk(fake, base) as both:
            await hold(both, tmp_path)
            await both.caller.call(m.Commit(), LIMIT)
            async with later(fake, base) as settler:
                assert (await settler.ask()).copy is Copy.RUNNING
                await settler.call(m.Bye())
            async with later(fake, base) as settler:
                assert (await settler.ask()).copy is Copy.RUNNING
        async with later(fake, base) as settler:  # its own connection is lost too
            assert (await settler.ask()).copy is Copy.RUNNING
            assert await settler.call(m.Commit()) == m.Running()
            await settler.call(m.Bye())
        assert directories(base) == []

    async def test_that_it_runs_gets_to_the_disk(
        self, fake: Fake, base: Path, tmp_path: Path
    ) -> None:
        """Beside the answer: a power cut leaves nobody in doubt whether it is to be restored."""
        async with talk(fake, base) as both:
            await hold(both, tmp_path)
            await both.caller.call(m.Commit(), LIMIT)
            [path] = directories(base)
            with anyio.fail_after(LIMIT):
                while '"running"' not in (path / "journal.json").read_text():
                    await anyio.sleep(0.01)
            await both.bye()

    @pytest.mark.parametrize("room", [True, False])
    async def test_a_full_disk_at_the_release(
        self, fake: Fake, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
    ) -> None:
        """READY means that the copy never ran, so it may not run before that is replaced."""
        fails = set() if room else {".next-journal.json"}

        def full(path: Path, data: bytes, *, sync: bool = True) -> None:
            if path.name in fails:
                raise OSError(28, "No space left on device")
            write_whole(path, data, sync=sync)

        monkeypatch.setattr(journal, "write_whole", full)
        monkeypatch.setattr(journal, "_overwrite", lambda *_: False)  # as for a large tree
        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path)
            [path] = directories(base)
            fails.add(".note-journal.json")
            if room:
                with anyio.fail_after(LIMIT):
                    while not (path / ".next-journal.json").exists():
                        await anyio.sleep(0.01)
                await both.caller.call(m.Commit(), LIMIT)
            else:
                with pytest.raises(StateError, match="No space left"):
                    await both.caller.call(m.Commit(), LIMIT)
                fails.clear()
                async with later(fake, base) as settler:
                    assert (await settler.ask()).copy is Copy.HELD
                    assert await settler.call(m.Commit()) == m.Running()
                    await settler.call(m.Bye())
        assert running(pid)

    async def test_it_waits_for_a_silent_connection_no_longer(
        self, fake: Fake, base: Path, tmp_path: Path
    ) -> None:
        async with talk(fake, base) as both:
            await hold(both, tmp_path)
            async with later(fake, base) as settler:
                await settler.ask()
                await settler.call(m.Commit())
                await settler.call(m.Bye())
            while both.status is None:
                await anyio.sleep(0.01)
        assert both.status == 0

    async def test_one_that_still_receives(self, fake: Fake, base: Path) -> None:
        async with talk(fake, base) as both:
            await both.prepare()
            await both.round()
            async with later(fake, base) as settler:
                assert (await settler.ask()).copy is Copy.BEGUN
                await settler.call(m.Discard())
                await settler.call(m.Bye())
        assert directories(base) == []

    async def test_a_release_that_fails_is_restored_again(
        self, fake: Fake, base: Path, tmp_path: Path
    ) -> None:
        fake.play(restore=Restore(fault=Fault(kind="signal"), fault_at="released"))
        async with talk(fake, base) as both:
            await hold(both, tmp_path)
            await both.source.aclose()
            async with later(fake, base) as settler:
                await settler.ask()
                with pytest.raises(CriuError):
                    await settler.call(m.Commit())
                assert (await settler.ask()).copy is Copy.UNSURE
                fake.play()
                ready = await settler.call(m.Recover())
                assert isinstance(ready, m.Ready)
                assert await settler.call(m.Commit()) == m.Running()
                await settler.call(m.Bye())
        assert running(ready.pid)
        assert directories(base) == []

    async def test_memory_that_cannot_come_is_restored_again(
        self, fake: Fake, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The copy never ran: it is ended, and there is no doubt about its images."""

        async def lacks(_session: DestinationSession) -> None:
            raise PageStoreError("the keeper of the memory has ended")

        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path)
            monkeypatch.setattr(DestinationSession, "require_memory", lacks)
            with pytest.raises(PageStoreError):
                await both.caller.call(m.Commit(), LIMIT)
            await ended(pid)
            async with later(fake, base) as settler:
                assert (await settler.ask()).copy is Copy.IMAGES
                ready = await settler.call(m.Recover())
                assert isinstance(ready, m.Ready)
                assert await settler.call(m.Commit()) == m.Running()
                await settler.call(m.Bye())
        assert running(ready.pid)
        assert directories(base) == []

    async def test_the_lease(self, fake: Fake, base: Path, tmp_path: Path) -> None:
        """When it is over the images are kept, from which it is restored."""
        async with talk(fake, base) as both:
            pid = await hold(both, tmp_path, lease_s=1)
            await both.source.aclose()
            while both.status is None:
                await anyio.sleep(0.02)
        await ended(pid)
        async with later(fake, base) as settler:
            standing = await settler.ask()
            assert standing.copy is Copy.IMAGES
            with pytest.raises(ProtocolError):  # nothing is held
                await settler.call(m.Commit())
            ready = await settler.call(m.Recover())
            assert isinstance(ready, m.Ready)
            assert (await settler.ask()).copy is Copy.HELD
            assert await settler.call(m.Commit()) == m.Running()
            assert await settler.call(m.Commit()) == m.Running()
            await settler.call(m.Bye())
        assert running(ready.pid)
        assert directories(base) == []

    async def test_given_up_when_the_lease_is_over(
        self, fake: Fake, base: Path, tmp_path: Path
    ) -> None:
        async with talk(fake, base) as both:
            await hold(both, tmp_path, lease_s=1)
        async with later(fake, base) as settler:
            assert (await settler.ask()).copy is Copy.IMAGES
            await settler.call(m.Discard())
            await settler.call(m.Bye())
        assert directories(base) == []


D = DestinationState


HANGS = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.flock(lock, fcntl.LOCK_EX)
print("", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hanging(base: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An agent that has its directory, and answers nobody."""
    (base / "m-7f3a-0000").mkdir(parents=True)
    command = [sys.executable, "-c", HANGS, str(base / "m-7f3a-0000")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_one_that_does_not_answer_is_ended(
    fake: Fake, base: Path, hanging: "subprocess.Popen[bytes]"
) -> None:
    agent = Incarnation.of(hanging.pid)
    assert agent is not None
    left_behind(base, D.READY, agent=agent)
    async with later(fake, base) as settler:
        assert (await settler.ask()).copy is Copy.IMAGES
        await settler.call(m.Discard())
        await settler.call(m.Bye())
    assert hanging.wait() == -signal.SIGKILL
    assert directories(base) == []


async def test_nobody_else_is_ended_by_a_wrong_journal(
    fake: Fake, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PID in the journal is another's by now: it is told that somebody has to end it."""
    monkeypatch.setattr(settling, "_FENCE_S", 0.2)
    journal = left_behind(base, D.READY)
    holder = Incoming.take_over(journal.path.parent)
    assert holder is not None
    holder.stay()
    async with later(fake, base) as settler:
        with pytest.raises(StateError, match="does not answer"):
            await settler.ask()
    holder.close()


async def test_a_wrong_key_finds_nothing(fake: Fake, base: Path, tmp_path: Path) -> None:
    async with talk(fake, base) as both:
        pid = await hold(both, tmp_path)
        async with later(fake, base) as settler:
            assert (await settler.ask(OTHER)).copy is Copy.NOTHING
            assert await settler.call(m.Discard()) == m.Done()
            for request in (m.Commit(), m.Recover()):
                with pytest.raises(UsageError, match="nothing of this migration"):
                    await settler.call(request)
            await settler.call(m.Bye())
        assert running(pid)
        await both.caller.call(m.Discard(), LIMIT)
        await both.bye()


async def test_another_key_on_the_way(fake: Fake, base: Path) -> None:
    """One connection settles one migration."""
    left_behind(base, D.IMAGES)
    async with later(fake, base) as settler:
        await settler.ask(KEY)
        with pytest.raises(UsageError, match="another migration"):
            await settler.ask(OTHER)


async def test_where_no_agent_ever_was(fake: Fake, base: Path) -> None:
    async with later(fake, base) as settler:
        assert (await settler.ask()).copy is Copy.NOTHING
        await settler.call(m.Bye())
    assert settler.status == 0
    assert not base.exists()


async def test_a_damaged_neighbour_is_no_obstacle(fake: Fake, base: Path) -> None:
    left_behind(base, D.IMAGES)
    (base / "a-bad").mkdir()
    (base / "a-bad/journal.json").write_text("{")
    (base / "a-file").touch()
    async with later(fake, base) as settler:
        assert (await settler.ask()).copy is Copy.IMAGES


async def test_where_others_may_write_nothing_is_believed(fake: Fake, base: Path) -> None:
    left_behind(base, D.IMAGES)
    base.chmod(0o777)
    async with later(fake, base) as settler:
        with pytest.raises(PhaulError, match="others"):
            await settler.ask()


async def test_a_migration_of_its_own_settles_no_other(fake: Fake, base: Path) -> None:
    left_behind(base, D.IMAGES)
    async with talk(fake, base) as both:
        await both.caller.hello(HELLO, LIMIT)
        with pytest.raises(UsageError, match="of its own"):
            await both.caller.call(m.Ask(key=KEY, act=True), LIMIT)
        await both.bye()
