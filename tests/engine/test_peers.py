"""`bench.peers` with the real CRIU: each contender moves a small process, and it is counted."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.peers.contenders import CONTENDERS, contender
from bench.peers.inside import Bench
from bench.peers.results import Facts, LeftOut, Taken
from bench.peers.scenarios import Scenario
from bench.peers.share import CRIU
from phaul.cgroups import Cgroups
from tests.engine.conftest import SLOW
from tests.pipes import large_pipes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

NAMES = tuple(one.name for one in CONTENDERS)
MB = 1 << 20


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    tmp_path.chmod(0o700)
    with large_pipes(), closing(Bench("native", tmp_path)) as made:
        yield made


@pytest.mark.parametrize("mbit", [None, 1000.0])
def test_each_moves_it_whole_and_is_counted(
    bench: Bench, tmp_path: Path, mbit: float | None
) -> None:
    facts, *lines = bench.run((Scenario(8, 500, 100, mbit, NAMES),), 1)
    assert isinstance(facts, Facts)
    taken = {line.contender: line.sample for line in lines if isinstance(line, Taken)}
    left = {line.what for line in lines if isinstance(line, LeftOut)}
    assert taken.keys() | left == set(NAMES)
    assert {"by hand", "phaul"} <= taken.keys()
    for name, sample in taken.items():
        assert not sample.error, name
        assert 0 < sample.gap_s <= sample.total_s
        assert 8 * MB < sample.bytes < 10 * MB
        assert sample.cpu_s > 0
        if sample.own_s is not None:
            assert 0 <= sample.own_s < sample.gap_s
            assert sum(sample.own.values()) == pytest.approx(sample.own_s)
            assert CRIU & sample.steps.keys()
    assert list(tmp_path.iterdir()) == []


def test_a_move_that_fails_has_no_figures(bench: Bench, tmp_path: Path) -> None:
    phaul = contender("phaul")
    assert phaul is not None
    (tmp_path / "criu").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "criu").chmod(0o755)
    broken = type(phaul)("broken", "", ("--criu", str(tmp_path / "criu")), "x")
    sample = bench.measure(Scenario(8, 0), broken)
    assert sample.error
    assert (sample.gap_s, sample.bytes) == (0, 0)
    (tmp_path / "criu").unlink()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    cgroups = Cgroups.find()
    assert cgroups is not None
    with closing(Bench("native", tmp_path)):
        assert cgroups.exists("/bench-mover")
    assert not cgroups.exists("/bench-mover")
    assert not cgroups.exists("/bench-victim")
