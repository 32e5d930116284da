"""The second lock: what it does to a tree's groups, and that it can always be undone."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaul.cgroups import Cgroups, LockedGroup
from phaul.errors import CgroupError, LockUnavailable
from phaul.protocol.preflight import Level, Where
from phaul.subjects.lock import TreeLock, second_lock
from tests.unit.fake_cgroups import FakeCgroups


@pytest.fixture
def cgroups(tmp_path: Path) -> FakeCgroups:
    found = FakeCgroups.at(tmp_path)
    found.process(7, "/user.slice/session-3.scope", threads=(8, 9))
    found.process(10, "/user.slice/session-3.scope")
    found.process(11, "/")
    return found


@pytest.fixture
def lock(cgroups: FakeCgroups) -> TreeLock:
    return TreeLock(cgroups)


SESSION = "/user.slice/session-3.scope"
PIDS = (7, 10, 11)
PLAN = (
    LockedGroup(group=f"{SESSION}/phaul-ab12.lock", home=SESSION, pids=(7, 10)),
    LockedGroup(group="/phaul-ab12.lock", home="/", pids=(11,)),
)


def homes(cgroups: Cgroups, pids: tuple[int, ...] = PIDS) -> list[str | None]:
    return [cgroups.group_of(pid) for pid in pids]


def test_the_plan_has_a_child_of_each_group_and_changes_nothing(
    lock: TreeLock, cgroups: FakeCgroups
) -> None:
    before = cgroups.tree()
    assert lock.plan("ab12", PIDS) == PLAN
    assert cgroups.tree() == before


def test_zombies_and_what_is_gone_are_left_out(lock: TreeLock, cgroups: FakeCgroups) -> None:
    cgroups.zombie(10)
    assert lock.plan("ab12", (7, 10, 99)) == (msgspec.structs.replace(PLAN[0], pids=(7,)),)
    assert lock.plan("ab12", (99,)) == ()


def test_taken_and_given_back(lock: TreeLock, cgroups: FakeCgroups) -> None:
    before, at_home = cgroups.tree(), homes(cgroups)
    lock.take(PLAN)
    assert homes(cgroups) == [PLAN[0].group, PLAN[0].group, PLAN[1].group]
    assert all(cgroups.frozen(each.group) for each in PLAN)
    assert lock.left(PLAN) == PIDS
    lock.give_back(PLAN)
    assert (cgroups.tree(), homes(cgroups)) == (before, at_home)
    lock.give_back(PLAN)
    assert lock.left(PLAN) == ()


def test_what_is_in_the_lock_and_in_no_plan_comes_home_too(
    lock: TreeLock, cgroups: FakeCgroups
) -> None:
    lock.take(PLAN)
    cgroups.process(20, PLAN[0].group)
    lock.give_back(PLAN)
    assert cgroups.group_of(20) == SESSION


def test_tasks_that_end_meanwhile_are_no_failure(lock: TreeLock, cgroups: FakeCgroups) -> None:
    cgroups.gone(10)
    lock.take(PLAN)
    cgroups.zombie(7)
    cgroups.gone(11)
    lock.give_back(PLAN)
    assert "phaul" not in str(cgroups.tree())


def test_a_take_that_fails_takes_nothing(lock: TreeLock, cgroups: FakeCgroups) -> None:
    before, at_home = cgroups.tree(), homes(cgroups)
    cgroups.refuses.add(PLAN[1].group)
    with pytest.raises(CgroupError, match="process 11 cannot be moved"):
        lock.take(PLAN)
    assert (cgroups.tree(), homes(cgroups)) == (before, at_home)


def test_one_that_does_not_stand_still_is_given_back(
    lock: TreeLock, cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phaul.subjects.apart._WAIT_S", 0.01)
    before = cgroups.tree()
    cgroups.numb.add(PLAN[0].group)
    with pytest.raises(CgroupError, match="did not stand still"):
        lock.take(PLAN)
    assert cgroups.tree() == before


def test_another_ones_group_is_neither_taken_nor_emptied(
    lock: TreeLock, cgroups: FakeCgroups
) -> None:
    cgroups.process(20, PLAN[1].group)
    with pytest.raises(CgroupError, match="is there already, with processes"):
        lock.take(PLAN)
    assert cgroups.group_of(20) == PLAN[1].group
    assert homes(cgroups) == [SESSION, SESSION, "/"]


def test_giving_back_goes_on_and_says_all_that_failed(lock: TreeLock, cgroups: FakeCgroups) -> None:
    third = LockedGroup(group="/x/phaul-ab12.lock", home="/x", pids=(30,))
    cgroups.process(30, "/x")
    plan = (*PLAN, third)
    lock.take(plan)
    cgroups.refuses.update({SESSION, "/"})
    with pytest.raises(CgroupError) as caught:
        lock.give_back(plan)
    assert "process 7 cannot be moved" in str(caught.value)
    assert "process 11 cannot be moved" in str(caught.value)
    assert cgroups.group_of(30) == "/x"
    assert not any(cgroups.is_frozen(each.group) for each in PLAN), "they run where they are"
    cgroups.refuses.clear()
    lock.give_back(plan)
    assert homes(cgroups) == [SESSION, SESSION, "/"]


def test_killed(lock: TreeLock, cgroups: FakeCgroups) -> None:
    lock.take(PLAN)
    lock.send_kill(PLAN)
    assert "phaul" in str(cgroups.tree())
    lock.kill(PLAN)
    assert homes(cgroups) == [None, None, None]
    assert "phaul" not in str(cgroups.tree())
    lock.kill(PLAN)


@pytest.mark.parametrize(
    ("group", "home"),
    [
        ("/../phaul-x.lock", "/.."),
        ("/a/../../phaul-x.lock", "/a/../.."),
        (SESSION, "/user.slice"),
        ("/phaul-x.lock", SESSION),
        ("/phaul-x.lock/y", "/phaul-x.lock"),
    ],
)
def test_a_journal_is_not_believed(
    group: str, home: str, lock: TreeLock, cgroups: FakeCgroups
) -> None:
    before, at_home = cgroups.tree(), homes(cgroups)
    bad = LockedGroup(group=group, home=home, pids=(7,))
    for act in (lock.take, lock.give_back, lock.kill, lock.left):
        with pytest.raises(CgroupError):
            act((bad,))
    assert (cgroups.tree(), homes(cgroups)) == (before, at_home)


def refuse_more_groups(cgroups: FakeCgroups) -> None:
    cgroups.full.add(SESSION)


def make_it_threaded(cgroups: FakeCgroups) -> None:
    cgroups.set_type(SESSION, "domain threaded")


def put_a_thread_elsewhere(cgroups: FakeCgroups) -> None:
    (cgroups.proc / "7/task/9/cgroup").write_text("0::/threads\n")


def move_it_out_of_sight(cgroups: FakeCgroups) -> None:
    (cgroups.proc / "7/cgroup").write_text("0::/../elsewhere\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (refuse_more_groups, r"cgroup\.max\.depth or cgroup\.max\.descendants"),
        (make_it_threaded, "threaded"),
        (put_a_thread_elsewhere, "threads of PID 7"),
        (move_it_out_of_sight, "cannot be reached"),
    ],
)
def test_what_cannot_be_locked_is_said_before(
    change: object, reason: str, lock: TreeLock, cgroups: FakeCgroups
) -> None:
    lock.available(PIDS)
    before = cgroups.tree()
    assert callable(change)
    change(cgroups)
    with pytest.raises(LockUnavailable, match=reason):
        lock.available(PIDS)
    assert cgroups.tree() == before


def test_a_kernel_without_the_freezer(
    lock: TreeLock, cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCgroups, "can_freeze", lambda *_: False)
    with pytest.raises(LockUnavailable, match=r"cannot freeze[^$]*\n.*Linux 5.2"):
        lock.available(PIDS)


def test_a_name_that_is_no_text_cannot_be_kept(lock: TreeLock, cgroups: FakeCgroups) -> None:
    (cgroups.proc / "7/cgroup").write_bytes(b"0::/\xff\n")
    for thread in (7, 8, 9):
        (cgroups.proc / f"7/task/{thread}/cgroup").write_bytes(b"0::/\xff\n")
    with pytest.raises(LockUnavailable, match="no text"):
        lock.plan("ab12", PIDS)


def test_a_host_without_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroups, "find", lambda *_: None)
    lock = TreeLock()
    with pytest.raises(LockUnavailable, match="not mounted"):
        lock.plan("ab12", PIDS)
    lock.give_back(())
    found = second_lock(PIDS)
    assert (found.check, found.level, found.where) == ("second-lock", Level.WARNING, Where.SOURCE)
    assert "not mounted" in found.what
    assert "phaul resolve" in found.what
    assert "mount -t cgroup2" in found.remedy


def test_the_finding_of_a_host_that_can(lock: TreeLock) -> None:
    found = second_lock(PIDS, lock)
    assert found.level is Level.OK
    assert "frozen cgroup" in found.what


GROUPS = ["/", "/a", "/a/b", "/c d", "/phaul-other.lock"]


@settings(max_examples=30)
@given(st.dictionaries(st.integers(2, 60), st.sampled_from(GROUPS), min_size=1), st.data())
def test_whatever_is_locked_comes_back(tree: dict[int, str], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        cgroups = FakeCgroups.at(Path(folder))
        for pid, group in tree.items():
            cgroups.process(pid, group)
        before = cgroups.tree()
        lock = TreeLock(cgroups)
        plan = lock.plan("ab12", tree)
        assert sorted(pid for each in plan for pid in each.pids) == sorted(tree)
        kept = msgspec.json.decode(msgspec.json.encode(plan), type=tuple[LockedGroup, ...])
        lock.take(kept)
        gone = data.draw(st.sets(st.sampled_from(sorted(tree))))
        for pid in gone:
            cgroups.gone(pid)
        lock.give_back(kept)
        assert cgroups.tree() == before
        assert {pid: cgroups.group_of(pid) for pid in tree.keys() - gone} == {
            pid: group for pid, group in tree.items() if pid not in gone
        }
