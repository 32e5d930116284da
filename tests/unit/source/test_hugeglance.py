"""What preflight finds of huge pages: how much they add, and whether they can be split."""

import errno
from pathlib import Path

import anyio
import pytest

from phaul.facts import Memory
from phaul.protocol.preflight import Level
from phaul.source.hugeglance import HugeGlance
from phaul.subjects.dirty import DirtyMeter
from phaul.subjects.huge import HUGE_PAGE
from tests.unit.subjects.fake_huge import FakeHuge

pytestmark = pytest.mark.anyio

MANY = Memory(private=100 << 20, transparent_huge=64 << 20)


@pytest.fixture
def host(tmp_path: Path) -> FakeHuge:
    made = FakeHuge(tmp_path)
    made.process(10, (HUGE_PAGE, 3 * HUGE_PAGE, 2 * HUGE_PAGE))
    return made


def glance(
    host: FakeHuge, memory: Memory = MANY, *, tracked: bool = True, wished: bool = False
) -> HugeGlance:
    return HugeGlance(
        memory,
        tracked=tracked,
        wished=wished,
        splitter=host.splitter,
        khugepaged=host.khugepaged,
    )


async def test_it_says_how_many_times_as_much_is_sent(
    host: FakeHuge, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.content(10, HUGE_PAGE, b"")

    async def write(_seconds: float) -> None:
        host.content(10, HUGE_PAGE, b"x" * 5000)

    made = glance(host)
    await made.look()
    meter = DirtyMeter(10)
    meter.huge, meter.huge_rate = [(10, HUGE_PAGE)], 256e6
    with monkeypatch.context() as patched:
        patched.setattr(anyio, "sleep", write)
        await made.measure(meter)
    assert made.blocks == ((10, HUGE_PAGE),)
    assert made.harmless_rate == 255e6
    (found,) = made.findings()
    assert found.level is Level.WARNING
    assert "now about 256 times what is written to them" in found.what
    assert "--split-huge-pages" in found.remedy


async def test_few_are_not_looked_at(host: FakeHuge) -> None:
    made = glance(host, Memory(private=100 << 20, transparent_huge=2 << 20))
    await made.look()
    meter = DirtyMeter(10)
    meter.huge = [(10, HUGE_PAGE)]
    await made.measure(meter)
    assert (host.splitter.told, made.blocks) == ([], ())
    assert [f.level for f in made.findings()] == [Level.OK]


async def test_where_it_is_not_possible_it_is_not_offered(host: FakeHuge) -> None:
    host.refuses = OSError(errno.EPERM, "Operation not permitted")
    made = glance(host)
    await made.look()
    (found,) = made.findings()
    assert found.level is Level.WARNING
    assert "--split-huge-pages" not in found.what + found.remedy
    assert not made.can_split


@pytest.mark.parametrize("broken", ["debugfs", "khugepaged"])
async def test_what_was_asked_for_and_cannot_be_is_refused(host: FakeHuge, broken: str) -> None:
    if broken == "debugfs":
        host.refuses = FileNotFoundError(errno.ENOENT, "No such file or directory")
    else:
        host.khugepaged.file.unlink()
    made = glance(host, wished=True)
    await made.look()
    thp, split = made.findings()
    assert (thp.check, split.check) == ("thp", "split-huge-pages")
    assert split.level is Level.NO
    assert "leave out --split-huge-pages" in split.remedy
    assert not made.splits


async def test_what_was_asked_for_and_can_be_is_said(host: FakeHuge) -> None:
    made = glance(host, wished=True)
    await made.look()
    assert made.splits
    assert [f.level for f in made.findings()] == [Level.OK, Level.OK]
    assert "khugepaged waits, on the whole machine" in made.findings()[1].what


async def test_without_rounds_they_do_no_harm(host: FakeHuge) -> None:
    made = glance(host, tracked=False, wished=True)
    await made.look()
    assert not made.splits
    assert [f.level for f in made.findings()] == [Level.OK, Level.OK]
