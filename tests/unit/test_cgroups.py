"""The driver for cgroups: where the hierarchy is, whose group is which, names that lead nowhere."""

import re
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.cgroups import Cgroups, LockedGroup, is_zombie
from phaul.errors import CgroupError
from tests.unit.fake_cgroups import FakeCgroups

MOUNT = "31 23 0:{n} {root} {point} rw,nosuid shared:9 - {kind} none rw\n"


@pytest.fixture
def cgroups(tmp_path: Path) -> FakeCgroups:
    return FakeCgroups.at(tmp_path)


def mounted(tmp_path: Path, *mounts: tuple[str, str, str]) -> Cgroups | None:
    """What is found in a host with those mounts: kind, root, place below tmp_path."""
    lines = ""
    for number, (kind, root, place) in enumerate(mounts):
        point = tmp_path / place
        point.mkdir(parents=True, exist_ok=True)
        (point / "cgroup.procs").touch()
        text = str(point).replace(" ", "\\040")
        lines += MOUNT.format(n=number, root=root, point=text, kind=kind)
    (tmp_path / "self").mkdir(exist_ok=True)
    (tmp_path / "self/mountinfo").write_text(lines)
    return Cgroups.find("here", tmp_path)


@pytest.mark.parametrize(
    ("mounts", "place", "root"),
    [
        ([("cgroup2", "/", "fs/cgroup")], "fs/cgroup", "/"),
        ([("cgroup", "/", "fs/memory"), ("cgroup2", "/", "fs/unified")], "fs/unified", "/"),
        ([("cgroup2", "/", "odd place")], "odd place", "/"),
        ([("cgroup2", "/app", "bound"), ("cgroup2", "/", "whole")], "whole", "/"),
        ([("cgroup2", "/..", "above"), ("cgroup2", "/app", "bound")], "bound", "/app"),
        ([("cgroup2", "/", "fs"), ("cgroup2", "/app", "fs")], "fs", "/app"),
    ],
)
def test_it_is_found_where_it_is(
    mounts: list[tuple[str, str, str]], place: str, root: str, tmp_path: Path
) -> None:
    found = mounted(tmp_path, *mounts)
    assert found is not None
    assert (found.point, found.root) == (tmp_path / place, root)


@pytest.mark.parametrize(
    "mounts",
    [[], [("cgroup", "/", "fs")], [("tmpfs", "/", "fs")], [("cgroup2", "/../..", "fs")]],
)
def test_it_may_be_nowhere(mounts: list[tuple[str, str, str]], tmp_path: Path) -> None:
    assert mounted(tmp_path, *mounts) is None
    assert Cgroups.find(proc=tmp_path / "no such") is None


@pytest.mark.parametrize(
    ("root", "line", "group"),
    [
        ("/", "0::/", "/"),
        ("/", "0::/user.slice/a b", "/user.slice/a b"),
        ("/app", "0::/app", "/"),
        ("/app", "0::/app/x", "/x"),
    ],
)
def test_the_group_of_a_process(root: str, line: str, group: str, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(f"9:name=systemd:/x\n{line}\n")
    assert Cgroups(tmp_path, root, proc=tmp_path).group_of(7) == group


@pytest.mark.parametrize(
    ("root", "line"),
    [
        ("/", "0::/../other"),
        ("/", "0::/.."),
        ("/", "0::/x (deleted)"),
        ("/app", "0::/application"),
        ("/app", "0::/"),
        ("/", "4:memory:/x"),
    ],
)
def test_a_group_that_cannot_be_reached(root: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(line + "\n")
    with pytest.raises(CgroupError, match="process 7"):
        Cgroups(tmp_path, root, proc=tmp_path).group_of(7)


def test_a_process_that_is_gone_has_none(cgroups: FakeCgroups) -> None:
    assert cgroups.group_of(7) is None
    assert not cgroups.move(7, "/")
    assert is_zombie(7, cgroups.proc)


def test_a_leader_that_ended_is_no_zombie_while_its_threads_go_on(cgroups: FakeCgroups) -> None:
    cgroups.process(7)
    assert not is_zombie(7, cgroups.proc)
    cgroups.zombie(7)
    assert is_zombie(7, cgroups.proc)
    stat = cgroups.proc / "7/stat"
    head, _, rest = stat.read_text().rpartition(") ")
    fields = rest.split()
    fields[17] = "3"
    stat.write_text(f"{head}) {' '.join(fields)}\n")
    assert not is_zombie(7, cgroups.proc)


NAMES = st.lists(st.sampled_from(["a", "..", ".", "", "phaul-x", "\0", "b c"]), max_size=6)


@given(NAMES | st.lists(st.text(max_size=4), max_size=4), st.sampled_from(["", "/", "//", "a/"]))
def test_no_name_leads_out_of_the_hierarchy(parts: list[str], before: str) -> None:
    point = Path("/point")
    try:
        path = Cgroups(point)._path(before + "/".join(parts))
    except CgroupError:
        return
    assert path == point or point in path.parents
    assert not {"..", "."} & set(str(path).split("/"))


@pytest.mark.parametrize("name", ["/..", "/a/../..", "a", "", "/a/", "//a", "/./a", "/a\0"])
def test_a_name_that_climbs_is_refused_by_all(name: str, cgroups: FakeCgroups) -> None:
    for act in (cgroups.make, cgroups.remove, cgroups.freeze, cgroups.members, cgroups.exists):
        with pytest.raises(CgroupError, match="no name"):
            act(name)
    with pytest.raises(CgroupError, match="no name"):
        cgroups.kill(name, 1)
    with pytest.raises(CgroupError, match="no name"):
        cgroups.move(7, name)


def test_this_process_is_never_moved_by_accident(cgroups: FakeCgroups) -> None:
    with pytest.raises(ValueError):
        cgroups.move(0, "/")
    (cgroups.point / "cgroup.procs").write_text("0\n7\n0\n")
    assert cgroups.members("/") == [7], "0 is one that this PID namespace does not see"


def test_a_group_from_its_making_to_its_end(cgroups: FakeCgroups) -> None:
    cgroups.process(7)
    cgroups.make("/a")
    cgroups.make("/a")
    assert cgroups.exists("/a")
    assert cgroups.move(7, "/a")
    assert (cgroups.group_of(7), cgroups.members("/a")) == ("/a", [7])
    with pytest.raises(CgroupError, match="with processes"):
        cgroups.make("/a")
    with pytest.raises(CgroupError, match="in use"):
        cgroups.remove("/a")
    cgroups.freeze("/a")
    cgroups.wait_frozen("/a", 1)
    assert cgroups.frozen("/a")
    cgroups.thaw("/a")
    assert not cgroups.frozen("/a")
    assert cgroups.send_kill("/a")
    cgroups.kill("/a", 1)
    cgroups.remove("/a")
    assert not cgroups.exists("/a")
    assert not cgroups.send_kill("/a")


def test_one_that_is_gone_is_empty(cgroups: FakeCgroups) -> None:
    cgroups.remove("/a")
    cgroups.kill("/a", 1)
    cgroups.wait_empty("/a", 1)
    assert cgroups.members("/a") == []
    assert not cgroups.populated("/a")
    with pytest.raises(CgroupError, match=r"cgroup\.freeze"):
        cgroups.freeze("/a")


def test_to_wait_has_an_end(cgroups: FakeCgroups) -> None:
    cgroups.process(7, "/a")
    with pytest.raises(CgroupError, match=r"did not stand still within 0\.01 s"):
        cgroups.wait_frozen("/a", 0.01)
    with pytest.raises(CgroupError, match=r"not empty within 0\.01 s"):
        cgroups.wait_empty("/a", 0.01)


def test_a_change_that_the_kernel_did_not_tell_of_is_seen(cgroups: FakeCgroups) -> None:
    cgroups.make("/a")
    change = threading.Timer(0.02, cgroups.freeze, ("/a",))
    change.start()
    cgroups.wait_frozen("/a", 20)
    change.join()


def test_what_the_kernel_refuses_is_said(cgroups: FakeCgroups) -> None:
    cgroups.full.add("/")
    with pytest.raises(CgroupError, match=re.escape("here: cgroup /a cannot be made: cgroup.max.")):
        cgroups.make("/a")


def test_a_locked_group_comes_back_from_a_file_as_it_was() -> None:
    locked = LockedGroup(group="/a b/phaul-x.lock", home="/a b", pids=(7, 8))
    kept = msgspec.json.encode(locked)
    assert msgspec.json.decode(kept, type=LockedGroup) == locked


@pytest.mark.parametrize(
    "text",
    [
        '{"group":"a","home":"/","pids":[]}',
        '{"group":"/a","home":"","pids":[]}',
        '{"group":"/a\\n","home":"/","pids":[]}',
        '{"group":"/a","home":"/","pids":[0]}',
        '{"group":"/a","home":"/","pids":[],"more":1}',
        '{"group":"/%s","home":"/","pids":[]}' % ("a" * 4096),
    ],
)
def test_what_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=LockedGroup)
