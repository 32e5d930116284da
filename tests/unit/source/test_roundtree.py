"""Who was in the last round, and the page maps that say so."""

import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from phaul.criu.images import PageFlags, read_pagemap
from phaul.source.roundtree import RoundTree, everything


@pytest.fixture
def tree() -> Iterator["subprocess.Popen[bytes]"]:
    """A shell, and what it has started."""
    with subprocess.Popen(["sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_one_map_has_all_addresses(tmp_path: Path) -> None:
    path = tmp_path / "pagemap-7.img"
    path.write_bytes(everything())
    ranges = read_pagemap(path).ranges
    assert ranges[0].start == 0
    assert all(a.end == b.start for a, b in pairwise(ranges))
    assert ranges[-1].end == 1 << 47
    assert {r.flags for r in ranges} == {PageFlags.PRESENT}
    assert max(r.pages for r in ranges) < 1 << 31


def test_who_was_there_all_the_time_was_in_it(
    tree: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    watched = RoundTree(tree.pid)
    watched.begin()
    watched.end()
    assert watched.pids == (tree.pid,)
    watched.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"pagemap-{tree.pid}.img"]


def test_who_came_or_went_meanwhile_may_not_have_been(tree: "subprocess.Popen[bytes]") -> None:
    watched = RoundTree(tree.pid)
    watched.end()
    assert watched.pids == ()
    watched.begin()
    tree.kill()
    tree.wait()
    watched.end()
    assert watched.pids == ()
