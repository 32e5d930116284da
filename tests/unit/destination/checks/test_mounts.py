import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from phaul.destination.checks.mounts import parse_mounts, read_mounts


def test_a_line() -> None:
    line = r"36 35 98:3 /a\040b /mnt/c\134d rw,noatime shared:1 master:2 - ext3 /dev/x rw,memory"
    (mount,) = parse_mounts(f"{line}\nodd - line\n\n")
    assert mount.device == os.makedev(98, 3)
    assert (mount.root, mount.point, mount.kind) == ("/a b", "/mnt/c\\d", "ext3")
    assert mount.options == {"rw", "memory"}


def test_of_this_process() -> None:
    mounts = read_mounts(Path("/proc"))
    proc = Path("/proc").stat().st_dev
    assert {mount.kind for mount in mounts if mount.device == proc} == {"proc"}


@given(text=st.text(max_size=100) | st.from_regex(r"[0-9:]+ [0-9] [0-9:]{1,9} / / x - y z w"))
def test_any_text(text: str) -> None:
    parse_mounts(text)
