import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.images.container import COMMON_MAGIC, read_messages
from phaul.errors import ImageError
from tests.unit.fake_criu import image

MAGICS = (COMMON_MAGIC, 0x56084025)


def via_file(path: Path, data: bytes, limit: int = 1 << 20) -> list[bytes]:
    path.write_bytes(data)
    return list(read_messages(path, MAGICS, limit))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("container") / "x.img"


@given(messages=st.lists(st.binary(max_size=50), max_size=5))
def test_goes_round(path: Path, messages: list[bytes]) -> None:
    assert via_file(path, image(MAGICS, *messages)) == messages


@given(data=st.binary(max_size=100) | st.binary(max_size=100).map(lambda d: image(MAGICS) + d))
def test_any_bytes(path: Path, data: bytes) -> None:
    try:
        messages = via_file(path, data)
    except ImageError:
        pass
    else:
        assert image(MAGICS, *messages) == data


def test_truncated_anywhere(path: Path) -> None:
    whole = image(MAGICS, b"abc", b"", b"defg")
    good = {8: [], 15: [b"abc"], 19: [b"abc", b""]}
    for length in range(len(whole)):
        if length in good:
            assert via_file(path, whole[:length]) == good[length]
        else:
            with pytest.raises(ImageError, match="truncated"):
                via_file(path, whole[:length])


def test_a_wrong_magic_number(path: Path) -> None:
    with pytest.raises(ImageError, match=r"magic number 0x00000001, expected 0x54564319"):
        via_file(path, image((1, 2)))


def test_a_length_is_believed_only_as_far_as_the_file_goes(path: Path) -> None:
    path.write_bytes(image(MAGICS) + struct.pack("<I", 0xFFFFFFFF) + b"x" * 100)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="only 100 are left"):
            list(read_messages(path, MAGICS, 1 << 40))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_memory_is_that_of_one_message(path: Path) -> None:
    path.write_bytes(image(MAGICS, *[bytes(1 << 16)] * 64))
    tracemalloc.start()
    try:
        for _ in read_messages(path, MAGICS, 1 << 30):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_too_large(path: Path) -> None:
    with pytest.raises(ImageError, match="at most 10 are expected"):
        via_file(path, image(MAGICS, b"abc"), limit=10)


def test_a_sparse_file_is_not_read(path: Path) -> None:
    path.write_bytes(image(MAGICS))
    os.truncate(path, 1 << 40)
    with pytest.raises(ImageError, match="at most"):
        list(read_messages(path, MAGICS, 1 << 20))


def _link(path: Path) -> None:
    path.with_name("real").write_bytes(image(MAGICS))
    path.symlink_to("real")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, _link, _device, lambda _path: None],
    ids=["fifo", "directory", "link", "link-to-device", "missing"],
)
@pytest.mark.usefixtures("no_leaks")
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x.img"
    make(path)
    with pytest.raises(ImageError, match=r"x\.img"):
        list(read_messages(path, MAGICS, 1 << 20))


def test_a_device() -> None:
    with pytest.raises(ImageError, match="not a regular file"):
        list(read_messages(Path("/dev/zero"), MAGICS, 1 << 20))


def test_a_name_that_cannot_be() -> None:
    with pytest.raises(ImageError):
        list(read_messages(Path("a\0b"), MAGICS, 1 << 20))


@pytest.mark.usefixtures("no_leaks")
def test_a_reader_that_stops_early_closes(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(image(MAGICS, b"a", b"b"))
    messages = read_messages(path, MAGICS, 1 << 20)
    assert next(messages) == b"a"
    del messages
