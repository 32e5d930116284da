from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.messages import message_class, parse
from phaul.errors import ImageError

NAMES = ["Request", "Response", "Stats", "Inventory", "PagemapHead", "PagemapEntry"]
SCHEMA = Path(__file__).resolve().parents[3] / "src/phaul/criu/schema"


def test_the_committed_descriptors_are_up_to_date(tmp_path: Path) -> None:
    from tools.generate_descriptors import generate

    generate(tmp_path / "now.binpb")
    assert (tmp_path / "now.binpb").read_bytes() == (SCHEMA / "descriptors.binpb").read_bytes()


def test_the_pool_is_private() -> None:
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("phaul.criu.Request")


def test_an_unknown_message() -> None:
    with pytest.raises(KeyError):
        message_class("Nothing")


@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_any_bytes_parse_or_are_an_image_error(name: str, data: bytes) -> None:
    try:
        message = parse(name, data, "x")
    except ImageError:
        pass
    else:
        assert message.IsInitialized()


def test_a_required_field_is_missed() -> None:
    with pytest.raises(ImageError, match="required"):
        parse("PagemapHead", b"", "here")
