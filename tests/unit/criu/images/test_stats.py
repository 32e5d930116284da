from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.images import read_dump_stats, read_restore_stats
from phaul.criu.images.stats import DumpStats, RestoreStats
from phaul.criu.messages import message_class
from phaul.errors import ImageError
from tests.unit.fake_criu import dump_stats, image
from tests.unit.scenario import Dump

MAGICS = (0x55105940, 0x57093306)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stats") / "stats-dump"


@given(
    dump=st.builds(
        Dump,
        pages_written=U64,
        shpages_written=U64,
        pages_skipped_parent=U64,
        freezing_us=U32,
        frozen_us=U32,
    )
)
def test_a_dump_goes_round(path: Path, dump: Dump) -> None:
    path.write_bytes(dump_stats(dump))
    stats = read_dump_stats(path)
    assert stats == DumpStats(
        freezing_us=dump.freezing_us,
        frozen_us=dump.frozen_us,
        memdump_us=100,
        memwrite_us=100,
        pages_scanned=1000,
        pages_skipped_parent=dump.pages_skipped_parent,
        pages_written=dump.pages_written,
        pages_lazy=0,
        shpages_scanned=0,
        shpages_skipped_parent=0,
        shpages_written=dump.shpages_written,
    )


def test_a_restore_goes_round(path: Path) -> None:
    stats = message_class("Stats")()
    for number, name in enumerate(
        ("pages_compared", "pages_skipped_cow", "pages_restored", "forking_time", "restore_time")
    ):
        setattr(stats.restore, name, number)
    path.write_bytes(image(MAGICS, stats.SerializeToString()))
    assert read_restore_stats(path) == RestoreStats(0, 1, 2, 3, 4)
    with pytest.raises(ImageError, match="no statistics of a dump"):
        read_dump_stats(path)


@given(data=st.binary(max_size=100))
def test_any_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ImageError):
        read_dump_stats(path)


def test_truncated_anywhere(path: Path) -> None:
    whole = dump_stats(Dump())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            read_dump_stats(path)


@given(bit=st.integers(0, len(dump_stats(Dump())) * 8 - 1))
def test_a_flipped_bit(path: Path, bit: int) -> None:
    data = bytearray(dump_stats(Dump()))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with suppress(ImageError):
        assert isinstance(read_dump_stats(path), DumpStats)


@pytest.mark.parametrize("messages", [[], [b"", b""]])
def test_the_wrong_number_of_messages(path: Path, messages: list[bytes]) -> None:
    path.write_bytes(image(MAGICS, *messages))
    with pytest.raises(ImageError, match=f"{len(messages)} messages"):
        read_dump_stats(path)
