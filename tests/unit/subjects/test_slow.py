"""A tree that is slowed down: which groups are limited, and that all is as it was afterwards."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.errors import CgroupError
from phaul.protocol.preflight import Level, Where
from phaul.subjects.proc import Proc
from phaul.subjects.slow import SlowedGroup, TreeSlow, slowable, spent
from tests.unit.fake_cgroups import FakeCgroups

UNIT = "/system.slice/unit.service"
TREE = (7, 10)


@pytest.fixture
def cgroups(tmp_path: Path) -> FakeCgroups:
    """A unit with a tree in it, and nothing passes the controller on."""
    found = FakeCgroups.at(tmp_path)
    found.process(7, UNIT, threads=(8, 9), children=(10,))
    found.process(10, UNIT, parent=7)
    found.process(30, "/user.slice/session-3.scope")
    return found


@pytest.fixture
def slow(cgroups: FakeCgroups) -> TreeSlow:
    return TreeSlow(cgroups)


def state(cgroups: FakeCgroups) -> dict[str, tuple[str | None, ...]]:
    """All that could be left behind, by group."""
    names = ("cgroup.type", "cgroup.subtree_control", "cpu.max")
    found = {}
    for group in cgroups.tree():
        members = sorted((cgroups.value(group, "cgroup.procs") or "").split())
        found[group] = (*members, *(cgroups.value(group, name) for name in names))
    return found


def limited(
    slow: TreeSlow, groups: tuple[SlowedGroup, ...], cpus: float
) -> tuple[SlowedGroup, ...]:
    """What is written down once they are limited; they are."""
    planned = [slow.limited(each, cpus) for each in groups]
    slow.limit({each.group: text for each, text in planned})
    return tuple(each for each, _ in planned)


def test_a_group_of_the_trees_own_is_limited_itself(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    before = state(cgroups)
    groups = slow.plan("ab12", TREE)
    assert state(cgroups) == before
    passed = ("/", "/system.slice")
    assert groups == (SlowedGroup(group=UNIT, home=UNIT, before="max 100000", passed=passed),)
    slow.take(groups, 7)
    assert [cgroups.group_of(pid) for pid in TREE] == [UNIT, UNIT]
    groups = limited(slow, groups, 0.5)
    assert cgroups.value(UNIT, "cpu.max") == "10000 20000"
    groups = limited(slow, groups, 0.25)
    assert groups[0].ours == ("10000 20000", "5000 20000")
    slow.lift(groups)
    assert cgroups.value(UNIT, "cpu.max") == "max 100000"
    slow.limit({UNIT: "5000 20000"})
    slow.give_back(groups)
    assert state(cgroups) == before
    slow.give_back(groups)
    assert state(cgroups) == before


def test_beside_others_the_tree_goes_to_a_threaded_child(
    slow: TreeSlow, cgroups: FakeCgroups
) -> None:
    cgroups.process(20, UNIT)
    before = state(cgroups)
    groups = slow.plan("ab12", TREE)
    child = f"{UNIT}/phaul-ab12.slow"
    passed = ("/", "/system.slice", UNIT)
    assert groups == (SlowedGroup(group=child, home=UNIT, passed=passed),)
    slow.take(groups, 7)
    assert [cgroups.group_of(pid) for pid in (*TREE, 20)] == [child, child, UNIT]
    assert cgroups.kind(child) == "threaded"
    groups = limited(slow, groups, 0.5)
    assert cgroups.value(child, "cpu.max") == "10000 20000"
    assert cgroups.value(UNIT, "cpu.max") == "max 100000"
    slow.give_back(groups)
    assert state(cgroups) == before


def test_from_the_root_of_all_it_goes_to_an_ordinary_child(
    slow: TreeSlow, cgroups: FakeCgroups
) -> None:
    cgroups.process(40, "/")
    before = state(cgroups)
    groups = slow.plan("ab12", (40,))
    assert groups == (SlowedGroup(group="/phaul-ab12.slow", home="/", passed=("/",)),)
    slow.take(groups, 40)
    assert cgroups.group_of(40) == "/phaul-ab12.slow"
    assert cgroups.kind("/phaul-ab12.slow") == "domain"
    slow.give_back(limited(slow, groups, 1.0))
    assert state(cgroups) == before


def test_what_passes_it_on_already_goes_on_to(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    for group in ("/", "/system.slice"):
        cgroups.set_value(group, "cgroup.subtree_control", "+cpu")
    cgroups.set_value(UNIT, "cpu.max", "3000 20000")
    before = state(cgroups)
    groups = slow.plan("ab12", TREE)
    assert (groups[0].before, groups[0].passed) == ("3000 20000", ())
    slow.take(groups, 7)
    groups = limited(slow, groups, 0.5)
    assert cgroups.value(UNIT, "cpu.max") == "3000 20000", "a tighter limit is not raised"
    groups = limited(slow, groups, 0.1)
    assert cgroups.value(UNIT, "cpu.max") == "2000 20000"
    slow.give_back(groups)
    assert state(cgroups) == before


def test_what_somebody_else_has_set_meanwhile_stays(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    cgroups.set_value("/", "cgroup.subtree_control", "+cpu")
    cgroups.set_value("/system.slice", "cgroup.subtree_control", "+cpu")
    groups = limited(slow, slow.plan("ab12", TREE), 0.5)
    cgroups.set_value(UNIT, "cpu.max", "70000 100000")
    slow.give_back(groups)
    assert cgroups.value(UNIT, "cpu.max") == "70000 100000"


def test_what_others_have_come_to_need_meanwhile_is_left_to_them(
    slow: TreeSlow, cgroups: FakeCgroups
) -> None:
    cgroups.process(50, "/system.slice/other.service")
    groups = slow.plan("ab12", TREE)
    slow.take(groups, 7)
    groups = limited(slow, groups, 0.5)
    cgroups.set_value("/system.slice/other.service", "cpu.max", "20000 100000")
    slow.give_back(groups)
    assert cgroups.value("/system.slice/other.service", "cpu.max") == "20000 100000"
    assert cgroups.value(UNIT, "cpu.max") == "max 100000"
    assert cgroups.value("/", "cgroup.subtree_control") == "cpu"


def test_a_group_below_one_that_is_limited_needs_none(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    cgroups.process(11, f"{UNIT}/inner")
    assert [each.group for each in slow.plan("ab12", (*TREE, 11))] == [UNIT]
    assert [each.group for each in slow.plan("ab12", TREE)] == [f"{UNIT}/phaul-ab12.slow"]


def test_what_is_born_meanwhile_is_slow_too(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    cgroups.process(20, UNIT)
    groups = slow.plan("ab12", TREE)
    slow.take(groups, 7)
    cgroups.process(11, groups[0].group, threads=(12,))
    slow.give_back(groups)
    assert cgroups.group_of(11) == UNIT


def test_a_tree_that_has_ended_leaves_nothing(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    cgroups.process(20, UNIT)
    groups = slow.plan("ab12", TREE)
    slow.take(groups, 7)
    cgroups.gone(7)
    cgroups.zombie(10)
    slow.give_back(limited(slow, groups, 0.5))
    assert "slow" not in str(cgroups.tree() - {"/system.slice", UNIT})
    assert cgroups.value("/", "cgroup.subtree_control") == ""


def test_a_unit_that_is_gone_is_no_failure(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    groups = slow.plan("ab12", TREE)
    slow.take(groups, 7)
    groups = limited(slow, groups, 0.5)
    cgroups.gone(7)
    cgroups.gone(10)
    cgroups.remove(UNIT)
    slow.give_back(groups)
    assert cgroups.value("/system.slice", "cgroup.subtree_control") == ""


@pytest.mark.parametrize("group", ["/", "/system.slice"])
def test_a_group_that_passes_nothing_on_is_found_beforehand(
    slow: TreeSlow, cgroups: FakeCgroups, group: str
) -> None:
    before = state(cgroups)
    cgroups.stuck.add(group)
    finding = slowable(TREE, slow)
    assert (finding.check, finding.level, finding.where) == ("throttle", Level.NO, Where.SOURCE)
    assert f"cgroup.subtree_control of cgroup {group} cannot be set" in finding.what
    assert state(cgroups) == before


def test_without_the_controller_it_is_said(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    (cgroups.point / "cgroup.controllers").write_text("memory\n")
    finding = slowable(TREE, slow)
    assert finding.level is Level.NO
    assert "no controller of CPU time" in finding.what
    assert "systemd.unified_cgroup_hierarchy=1" in finding.remedy


def test_without_cgroup_v2_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phaul.cgroups.Cgroups.find", lambda *_: None)
    finding = slowable(TREE, TreeSlow())
    assert finding.level is Level.NO
    assert "cgroup v2 is not mounted" in finding.what


def test_where_it_can_be_nothing_is_left_of_the_try(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    for other in (None, 20):
        if other:
            cgroups.process(other, UNIT)
        before = state(cgroups)
        assert slowable(TREE, slow).level is Level.OK
        assert state(cgroups) == before


def test_only_groups_such_as_it_makes_are_touched(slow: TreeSlow, cgroups: FakeCgroups) -> None:
    before = state(cgroups)
    for group in (
        SlowedGroup(group="/user.slice", home=UNIT, before="max 100000"),
        SlowedGroup(group=UNIT, home="/system.slice"),
        SlowedGroup(group=f"{UNIT}/phaul-ab12.lock", home=UNIT),
        SlowedGroup(group=UNIT, home=UNIT, before="max 100000", passed=("/user.slice",)),
        SlowedGroup(group="/../phaul-ab12.slow", home="/.."),
    ):
        with pytest.raises(CgroupError, match=r"no group that is|no name of a cgroup|not in what"):
            slow.give_back((group,))
    assert state(cgroups) == before


def test_it_is_the_same_written_down(slow: TreeSlow) -> None:
    (each,) = slow.plan("ab12", TREE)
    each, _ = slow.limited(each, 0.4)
    again = msgspec.json.decode(msgspec.json.encode(each), type=SlowedGroup)
    assert again == each


def test_cpu_seconds_are_the_processs_and_its_reaped_childrens(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    middle = " ".join(["0"] * 10)
    (tmp_path / "7" / "stat").write_text(f"7 (a) b) S {middle} 150 50 30 20 20 0 1 {middle} 0\n")
    assert spent((7, 8), Proc(tmp_path)) == {7: 2.5}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["/", "/a", "/a/b", "/c", "/c/d/e"]), min_size=1, max_size=8),
    st.data(),
)
def test_whatever_the_groups_are_all_is_as_before(homes: list[str], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        cgroups = FakeCgroups.at(Path(folder))
        for pid, home in enumerate(homes, 100):
            cgroups.process(pid, home, children=tuple(range(101, 100 + len(homes))))
        tree = data.draw(st.sets(st.sampled_from(range(100, 100 + len(homes))), min_size=1))
        before = state(cgroups)
        slow = TreeSlow(cgroups)
        finding = slowable(tree, slow)
        assert state(cgroups) == before
        groups = slow.plan("ab12", tree)
        try:
            slow.take(groups, min(tree))
            assert finding.level is Level.OK
            groups = limited(slow, groups, data.draw(st.floats(0.001, 64)))
        except CgroupError:
            assert finding.level is Level.NO
        slow.give_back(tuple(random.Random(len(homes)).sample(groups, len(groups))))
        slow.give_back(groups)
        assert state(cgroups) == before
