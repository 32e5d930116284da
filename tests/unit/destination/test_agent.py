"""The agent over joined sockets, with a fake CRIU: what it does, and what it leaves."""

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import Engine, Examination
from phaul.destination.session import DestinationSession
from phaul.errors import CriuError, CriuUnfit, PageStoreError, PhaulError
from phaul.protocol import messages as m
from phaul.protocol.frames import Frame, Kind, pack
from phaul.protocol.ownership import DestinationState
from phaul.protocol.preflight import Level, PidsNeed
from phaul.storage.journal import DestinationRecord, Journal
from tests.unit.conftest import Fake, state
from tests.unit.destination.talk import LIMIT, Talk, talk
from tests.unit.protocol.samples import ANSWERS, HELLO, REQUESTS
from tests.unit.rounds import UNFOUNDED
from tests.unit.scenario import Fault, Restore

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


async def test_a_whole_migration_leaves_nothing(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        assert [path.stat().st_mode & 0o777 for path in (tmp_path / "in").iterdir()] == [0o700]
        await both.round(0)
        await both.round(1)
        assert await both.restore(tmp_path) > 0
        await both.caller.call(m.Commit(), LIMIT)
        await both.bye()
    assert both.status == 0
    assert both.left() == []
    assert fake.names().count("RESTORE") == 1


async def test_an_examination_begun_ahead_is_the_answer(fake: Fake, tmp_path: Path) -> None:
    begun = Examination.begin(Engine(fake.command))
    async with talk(fake, tmp_path / "in", examination=begun) as both:
        welcome = await both.caller.hello(HELLO, LIMIT)
        assert welcome.facts.criu.major >= 4
        await both.bye()
    assert fake.names().count("CHECK") == 1


async def test_an_examination_begun_ahead_says_what_is_unfit(fake: Fake, tmp_path: Path) -> None:
    fake.play(check=Fault(kind="fail", message="the kernel is odd"))
    begun = Examination.begin(Engine(fake.command))
    async with talk(fake, tmp_path / "in", examination=begun) as both:
        with pytest.raises(CriuUnfit, match="the kernel is odd"):
            await both.caller.hello(HELLO, LIMIT)


async def test_an_examination_that_nobody_waits_for_is_ended(fake: Fake, tmp_path: Path) -> None:
    begun = Examination.begin(Engine(fake.command))
    async with talk(fake, tmp_path / "in", examination=begun):
        pass  # the source goes away without a word


async def test_images_are_kept_if_that_was_asked_for(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare(keep_images=True)
        await both.round()
        await both.restore(tmp_path)
        await both.caller.call(m.Commit(), LIMIT)
        await both.bye()
    assert {path.name for path in both.left()} >= {"KEEP", "inventory.img"}


async def test_it_looks_at_what_the_tree_needs(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.caller.hello(HELLO, LIMIT)
        answer = await both.caller.call(m.Survey(needs=(PidsNeed(pids=(1,)),)), LIMIT)
        assert isinstance(answer, m.Surveyed)
        assert [f.level for f in answer.findings if f.check == "pids"] == [Level.NO]
        assert any(f.check == "privileges" for f in answer.findings)
        assert isinstance(await both.caller.call(m.Clock(), LIMIT), m.Time)
        await both.bye()
    assert both.left() == []


async def test_what_is_wrong_with_a_round_is_told(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        with pytest.raises(PageStoreError, match="in the round before"):
            await both.round(sent=UNFOUNDED)
        await both.bye()
    assert both.left() == []


async def test_criu_s_log_comes_with_its_error(fake: Fake, tmp_path: Path) -> None:
    fake.play(restore=Restore(fault=Fault(kind="fail", log="Error (x.c:1): no luck\n")))
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        await both.round()
        with pytest.raises(CriuError) as caught:
            await both.restore(tmp_path)
        assert "no luck" in caught.value.log_text
        await both.caller.call(m.Discard(), LIMIT)
        await both.bye()
    assert both.left() == []


async def _greeted(both: Talk, _folder: Path) -> None:
    await both.caller.hello(HELLO, LIMIT)


async def _prepared(both: Talk, _folder: Path) -> None:
    await both.prepare()


async def _in_a_round(both: Talk, _folder: Path) -> None:
    await both.prepare()
    await both.caller.call(m.StartRound(number=0), LIMIT)


async def _between_rounds(both: Talk, _folder: Path) -> None:
    await both.prepare()
    await both.round()


async def _in_an_image(both: Talk, _folder: Path) -> None:
    await _between_rounds(both, _folder)
    await both.source.control.send(m.Image(name="core-1.img", size=100))
    await both.source.control.send_chunk(b"half")


LOST = [_greeted, _prepared, _in_a_round, _between_rounds, _in_an_image]


@pytest.mark.parametrize("when", LOST, ids=lambda step: step.__name__.strip("_"))
async def test_a_lost_source_leaves_nothing(
    fake: Fake, tmp_path: Path, when: Callable[[Talk, Path], object]
) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await when(both, tmp_path)  # type: ignore[misc]
    assert both.status == 4
    assert both.left() == []


async def test_until_all_has_ended_the_journal_tells_of_it(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the agent is killed before that, its cage is found by nothing else."""
    known: list[DestinationRecord | None] = []
    close = DestinationSession.close

    async def closed(self: DestinationSession, **options: bool) -> None:
        await close(self, **options)
        (path,) = (tmp_path / "in").iterdir()
        known.append(Journal(path, DestinationRecord).read())

    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        monkeypatch.setattr(DestinationSession, "close", closed)
    assert [one and one.state for one in known] == [DestinationState.RECEIVING]
    assert both.left() == []


async def test_a_silent_source_is_given_up(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in", silence=0.3) as both:
        await both.source.control.send(HELLO)
        while both.status is None:
            await anyio.sleep(0.05)
    assert both.status == 4
    assert both.left() == []


async def test_a_copy_that_may_be_the_only_one_keeps_its_images(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare(lease_s=1)
        await both.round()
        pid = await both.restore(tmp_path)
    assert both.status == 4
    assert {path.name for path in both.left()} >= {"journal.json", "inventory.img"}
    assert state(pid) == ""
    assert fake.notes("discarded")


async def test_a_failed_restore_leaves_nothing(fake: Fake, tmp_path: Path) -> None:
    fake.play(restore=Restore(fault=Fault(kind="fail", log="Error (y.c:2): no such file\n")))
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        await both.round()
        with pytest.raises(CriuError, match="no such file"):
            await both.restore(tmp_path)
        await both.caller.call(m.Discard(), LIMIT)
        await both.bye()
    assert both.left() == []


async def test_no_image_replaces_what_is_there(fake: Fake, tmp_path: Path) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        await both.round()
        folder = next(path for path in both.left() if path.name == "0")
        (folder / "inventory.img").write_bytes(b"mine")
        with pytest.raises(PhaulError, match=r"inventory\.img"):
            await both.restore(tmp_path)
        assert (folder / "inventory.img").read_bytes() == b"mine"
        await both.caller.call(m.Discard(), LIMIT)
        await both.bye()


HOSTILE = (
    b'{"is":"image","name":"../../etc/cron.d/x.img","size":4}',
    b'{"is":"image","name":"/etc/x.img","size":4}',
    b'{"is":"image","name":"core-1.img","size":-1}',
    b'{"is":"image","name":"core-1.img\\u0000.img","size":4}',
    b'{"is":"start-round","number":1e99}',
    b'{"is":"survey","needs":[{"need":"file","path":"/a/../../b","use":"open"}]}',
    b"[" * 10_000,
    b"\xff" * 100,
)


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_is_no_message_ends_it(fake: Fake, tmp_path: Path, payload: bytes) -> None:
    async with talk(fake, tmp_path / "in") as both:
        await both.prepare()
        await both.round()
        await both.source.control._stream.send(pack(Frame(Kind.CONTROL, payload)))
        while both.status is None:
            await anyio.sleep(0.01)
    assert both.status == 4
    assert both.left() == []


@pytest.mark.parametrize("tens", range(5))
async def test_random_messages_never_leave_a_file_behind(
    fake: Fake, tmp_path: Path, tens: int
) -> None:
    """Some hundred messages and scraps, right and wrong, in any order; each seed by itself."""
    for seed in range(10 * tens, 10 * tens + 10):
        rng = random.Random(seed)
        async with talk(fake, tmp_path / "in", silence=1) as both:
            try:
                if rng.random() < 0.7:
                    await both.caller.hello(HELLO, LIMIT)
                for _ in range(rng.randrange(1, 12)):
                    await both.source.control._stream.send(_scrap(rng))
            except (PhaulError, anyio.BrokenResourceError):
                pass
        assert both.status in {0, 4, 5, 7}, seed
        assert both.left() == [], seed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "in"]


def _scrap(rng: random.Random) -> bytes:
    # Prepare waits half a minute for a memory channel, which never comes here.
    harmless = tuple(r for r in REQUESTS if not isinstance(r, m.Hello | m.Survey | m.Prepare))
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(1, 64))
        case 1:
            return pack(Frame(Kind.RAW, rng.randbytes(rng.randrange(1, 500))))
        case 2:
            data = bytearray(m.encode(rng.choice(harmless)))
            data[rng.randrange(len(data))] = rng.randrange(256)
            return pack(Frame(Kind.CONTROL, bytes(data)))
        case 3:
            return pack(Frame(Kind.CONTROL, m.encode(rng.choice(ANSWERS))))
        case _:
            return pack(Frame(Kind.CONTROL, m.encode(rng.choice(harmless))))
