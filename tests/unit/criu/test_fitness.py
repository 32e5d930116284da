from pathlib import Path

import pytest

from phaul.criu.fitness import capabilities, privileges
from phaul.protocol.preflight import Finding, Level, Where

ALL = (1 << 41) - 1
PTRACE, ADMIN, RESOURCE, CHECKPOINT = 19, 21, 24, 40


def without(*numbers: int) -> int:
    return ALL & ~sum(1 << number for number in numbers)


def look(proc: Path, mask: int = ALL, user: int = 0, uids: str = "0 0 4294967295") -> list[Finding]:
    (proc / "self").mkdir(exist_ok=True)
    (proc / "self/status").write_text(
        f"Name:\tphaul\nUid:\t{user}\t{user}\t{user}\t{user}\nCapEff:\t{mask:016x}\n"
    )
    (proc / "self/uid_map").write_text(f"  {uids}\n")
    found = list(privileges(Where.SOURCE, proc))
    assert all(finding.where is Where.SOURCE for finding in found)
    assert all(finding.check == "privileges" for finding in found)
    assert all(bool(finding.remedy) is (finding.level is not Level.OK) for finding in found)
    return found


def only(found: list[Finding], level: Level) -> str:
    (finding,) = found
    assert finding.level is level, finding.what
    return finding.what


def test_root(tmp_path: Path) -> None:
    only(look(tmp_path), Level.OK)
    assert len(capabilities(tmp_path)) == 10


def test_another_user(tmp_path: Path) -> None:
    assert only(look(tmp_path, user=1000), Level.NO) == "phaul runs as user 1000: CRIU wants root"


def test_nothing_to_work_with(tmp_path: Path) -> None:
    found = look(tmp_path, without(ADMIN, CHECKPOINT))
    assert [finding.level for finding in found] == [Level.NO, Level.WARNING]
    assert "CRIU refuses" in found[0].what
    only(look(tmp_path, without(CHECKPOINT)), Level.OK)
    assert "no namespace" in only(look(tmp_path, without(ADMIN)), Level.WARNING)


def test_what_a_missing_one_means(tmp_path: Path) -> None:
    said = only(look(tmp_path, without(RESOURCE)), Level.WARNING)
    assert "CAP_SYS_RESOURCE is missing" in said
    assert "pipe-max-size" in said
    assert len(look(tmp_path, without(1, 6, 7, 8, 12, 18))) == 6


def test_stopping_tasks(tmp_path: Path) -> None:
    only(look(tmp_path, without(PTRACE)), Level.WARNING)
    scope = tmp_path / "sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    scope.write_text("1\n")
    assert "ptrace_scope" in only(look(tmp_path, without(PTRACE)), Level.NO)
    only(look(tmp_path), Level.OK)


def test_in_a_user_namespace(tmp_path: Path) -> None:
    assert "user namespace" in only(look(tmp_path, uids="0 100000 65536"), Level.WARNING)


def test_without_proc(tmp_path: Path) -> None:
    (finding,) = privileges(Where.DESTINATION, tmp_path)
    assert finding.level is Level.NO
    with pytest.raises(OSError):
        capabilities(tmp_path)


def test_of_an_odd_kernel(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_bytes(b"CapEff:\tno\n\xff:\nUid: x\n")
    levels = {finding.level for finding in privileges(Where.SOURCE, tmp_path)}
    assert Level.NO in levels


def test_of_this_process() -> None:
    found = privileges(Where.SOURCE)
    assert {finding.check for finding in found} == {"privileges"}
