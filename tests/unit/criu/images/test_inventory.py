from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.images import read_inventory
from phaul.criu.images.inventory import Inventory
from phaul.criu.messages import message_class
from phaul.errors import ImageError
from tests.unit.fake_criu import image, inventory

MAGICS = (0x58313116,)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inventory") / "inventory.img"


@given(version=st.integers(0, 9), uptime=st.integers(0, 2**64 - 1), tcp_close=st.booleans())
def test_goes_round(path: Path, version: int, uptime: int, tcp_close: bool) -> None:
    wire = message_class("Inventory")(
        img_version=version, dump_uptime=uptime, tcp_close=tcp_close, lsmtype=2, pre_dump_mode=1
    )
    path.write_bytes(image(MAGICS, wire.SerializeToString()))
    found = read_inventory(path)
    assert (found.img_version, found.tcp_close) == (version, tcp_close)
    assert (found.lsm_type, found.pre_dump_mode) == (2, 1)
    assert uptime in vars(found).values()


@given(data=st.binary(max_size=100) | st.binary(max_size=60).map(lambda d: image(MAGICS, d)))
def test_any_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(ImageError):
        assert isinstance(read_inventory(path), Inventory)


def test_truncated_anywhere(path: Path) -> None:
    whole = inventory()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError):
            read_inventory(path)


def test_two_messages(path: Path) -> None:
    path.write_bytes(inventory() + b"\0\0\0\0")
    with pytest.raises(ImageError, match="2 messages"):
        read_inventory(path)
