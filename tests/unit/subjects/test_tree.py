from pathlib import Path

import pytest

from phaul.errors import SubjectError
from phaul.facts import Nested
from phaul.subjects.proc import Proc
from phaul.subjects.tree import nested, own_namespaces, processes, tree_pids
from tests.unit.subjects.fake_proc import FakeProc


def test_the_whole_tree_and_nothing_else(fake_proc: FakeProc) -> None:
    fake_proc.process(10, children=(11, 12))
    fake_proc.process(11, 10, children=(13,))
    fake_proc.process(12, 10)
    fake_proc.process(13, 11)
    fake_proc.process(14, 1)
    assert sorted(tree_pids(10, fake_proc.proc)) == [10, 11, 12, 13]
    assert tree_pids(10, fake_proc.proc)[0] == 10


def test_a_kernel_that_does_not_say_the_children(fake_proc: FakeProc) -> None:
    fake_proc.process(10, children=None)
    fake_proc.process(11, 10, children=None)
    fake_proc.process(12, 11, children=None)
    fake_proc.process(13, 1, children=None)
    assert sorted(tree_pids(10, fake_proc.proc)) == [10, 11, 12]


def test_what_is_gone_is_left_out(fake_proc: FakeProc) -> None:
    fake_proc.process(10, children=(11, 12))
    fake_proc.process(12, 10)
    assert [p.pid for p in processes(10, fake_proc.proc)] == [10, 12]


def test_a_root_that_is_gone(fake_proc: FakeProc) -> None:
    assert tree_pids(10, fake_proc.proc) == []
    with pytest.raises(SubjectError, match="process 10 has just ended"):
        processes(10, fake_proc.proc)


def test_what_a_process_is(fake_proc: FakeProc) -> None:
    fake_proc.process(
        10, 7, group=9, session=-1, threads=(15, 16), inner=3, tracer=99, terminal=34816
    )
    (found,) = processes(10, fake_proc.proc)
    assert (found.parent, found.group, found.session, found.inner) == (7, 9, 0, 3)
    assert (found.threads, found.tracer, found.terminal) == ((10, 15, 16), 99, 34816)
    assert found.start == 1010
    assert found.namespaces["net"] == 3


def test_a_name_that_is_no_text(fake_proc: FakeProc) -> None:
    here = fake_proc.process(10)
    stat = (here / "stat").read_bytes().replace(b"fake", b"a\xff\n)")
    (here / "stat").write_bytes(stat)
    (found,) = processes(10, fake_proc.proc)
    assert found.name == "a\ufffd\n)"


def test_namespaces_of_its_own(fake_proc: FakeProc) -> None:
    fake_proc.process(10, children=(11,), namespaces={"net": 30, "pid": 40})
    fake_proc.process(11, 10, namespaces={"net": 31, "pid": 40})
    tree = processes(10, fake_proc.proc)
    assert own_namespaces(tree[0], fake_proc.proc) == ("pid", "net")
    assert nested(tree) == (Nested(pid=11, kind="net"),)


def test_what_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").mkdir()
    with pytest.raises(SubjectError, match="stat cannot be read: Is a directory"):
        Proc(tmp_path).process(7)
