"""The victims: each finds itself whole, and each of their checks is able to fail."""

import ctypes
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.victims import pyheap
from tests.victims.conftest import PAGE, Start, flip, has_problem, open_memory, poke
from tests.victims.harness import Victim, VictimError, start


def options_of(name: str, tmp_path: Path) -> list[object]:
    special: dict[str, list[object]] = {
        "piggie": ["--file", tmp_path / "piggie.txt"],
        "dirtier": ["--size-mb", 8, "--kinds", "private:2,shared,file", "--file", tmp_path / "d"],
        "tree": ["--dir", tmp_path],
        "pyheap": ["--size-mb", 1],
        "echo_server": ["--listen", "127.0.0.1:0"],
    }
    return special.get(name, [])


@pytest.mark.parametrize(
    "name", ["piggie", "dirtier", "tree", "pyheap", "echo_server", "forker", "mapper", "crowd"]
)
def test_a_victim_is_whole_and_counts_on(begin: Start, tmp_path: Path, name: str) -> None:
    victim = begin(name, *options_of(name, tmp_path))
    first, second = victim.check(), victim.check()
    assert (first.problems, second.problems) == ([], [])
    assert first.ok
    assert second.ok
    assert (first.victim, first.pid) == (name, victim.pid)
    assert second.counter >= first.counter
    assert second.rt_ns > first.rt_ns
    victim.terminate()
    assert not victim.alive()


def test_an_outage_shows_as_one_gap(begin: Start) -> None:
    victim = begin("dirtier", "--size-mb", 1)
    before = victim.check()
    victim.kill(signal.SIGSTOP)
    time.sleep(0.1)
    victim.kill(signal.SIGCONT)
    after = victim.check()
    assert after.ok
    assert after.max_gap_ms >= 100
    assert max(g["ms"] for g in after.gaps) == after.max_gap_ms
    assert after.counter > before.counter


def test_a_torn_counter_is_found(begin: Start) -> None:
    victim = begin("dirtier", "--size-mb", 1)
    poke(victim.pid, victim.check().data["counter_at"], (1 << 40).to_bytes(8, "little"))
    assert has_problem(victim.check(), "counter", "inverse")


def test_problems_are_all_counted_and_twenty_listed(begin: Start) -> None:
    victim = begin("dirtier", "--size-mb", 1, "--rate", 0)
    at = victim.check().data["private_at"]
    for page in range(30):
        flip(victim.pid, at + page * PAGE)
    report = victim.check()
    assert (report.problem_count, len(report.problems)) == (30, 20)


@pytest.mark.parametrize("fill", ["random", "zero", "text"])
@pytest.mark.parametrize("offset", [0, 100, PAGE // 2, PAGE - 1])
def test_dirtier_finds_a_byte_anywhere_in_a_page(begin: Start, fill: str, offset: int) -> None:
    victim = begin("dirtier", "--size-mb", 1, "--rate", 0, "--fill", fill, "--thp", "always")
    flip(victim.pid, victim.check().data["private_at"] + 3 * PAGE + offset)
    report = victim.check()
    assert has_problem(report, "page 3 (private", f"byte {offset & ~7}:")
    assert report.data["bad_pages"] == 1


@pytest.mark.parametrize("kind", ["private", "shared", "file_private", "file_shared"])
def test_dirtier_checks_memory_of_each_kind(begin: Start, tmp_path: Path, kind: str) -> None:
    victim = begin(
        "dirtier", "--size-mb", 4, "--kinds", "private,shared,file", "--file", tmp_path / "f"
    )
    flip(victim.pid, victim.check().data[f"{kind}_at"] + 5 * PAGE + 100)
    assert has_problem(victim.check(), f"({kind} page 5 ", "byte 96:")


def test_dirtier_tells_a_stale_page(begin: Start) -> None:
    victim = begin("dirtier", "--size-mb", 1, "--working-set-pages", 1)
    data = victim.check().data
    with open_memory(victim.pid) as mem:
        mem.seek(data["private_at"])
        old = mem.read(PAGE)
    while victim.check().data["dirtied"] == data["dirtied"]:
        pass
    victim.kill(signal.SIGSTOP)
    poke(victim.pid, data["private_at"] + 8, old[8:16])
    poke(victim.pid, data["versions_at"] + 4, (7).to_bytes(4, "little"))
    victim.kill(signal.SIGCONT)
    report = victim.check()
    assert has_problem(report, "page 1 ", "version 7", "that of version 0")
    assert has_problem(report, "versions:")


@pytest.mark.parametrize("reopen", [False, True])
def test_piggie_finds_a_short_file(begin: Start, tmp_path: Path, reopen: bool) -> None:
    path = tmp_path / "lines"
    victim = begin("piggie", "--file", path, "--interval-ms", 1, *["--reopen"] * reopen)
    while victim.check().data["lines"] < 20:
        pass
    os.truncate(path, 11)
    assert has_problem(victim.check(), "lines:" if reopen else "line 5:")


def test_piggie_finds_a_wrong_line_and_another_file(begin: Start, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    victim = begin("piggie", "--file", path, "--interval-ms", 1)
    while victim.check().data["lines"] < 5:
        pass
    with path.open("r+") as f:
        f.seek(4)
        f.write("7")
    assert has_problem(victim.check(), "line 2: wanted 2, found '7'")
    path.rename(tmp_path / "away")
    path.write_text("0\n")
    assert has_problem(victim.check(), "no longer")


def find_pipe(pid: int, unread: bool) -> Path:
    """Find a pipe of a process that holds bytes, or none."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if not stat.S_ISFIFO(path.stat().st_mode):
            continue
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        have = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), sys.byteorder)
        os.close(fd)
        if (have > 100) == unread:
            return path
    raise AssertionError("no such pipe")


def test_tree_finds_a_dead_child(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    pid = victim.check().data["child_1_pid"]
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 20  # the kernel takes its time over a kill
    words = (f"child 1 (PID {pid}) is dead", "signal 9")
    while not has_problem(report := victim.check(), *words):
        assert time.monotonic() < until, report.problems


def test_tree_takes_its_children_along(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    data = victim.check().data
    victim.terminate()
    for name in ("child_0_pid", "child_1_pid", "child_2_pid", "zombie_pid"):
        assert not Path(f"/proc/{data[name]}").exists()


def test_tree_finds_bytes_taken_from_a_pipe(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    victim.check()
    for pid, who in ((victim.pid, "root"), (victim.check().data["child_2_pid"], "child 2")):
        fd = os.open(find_pipe(pid, unread=True), os.O_RDONLY)
        os.read(fd, 1)
        os.close(fd)
        assert has_problem(victim.check(), f"{who}: unread pipe: wanted 3000 bytes, found 2999")


def test_tree_finds_a_second_token(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    assert victim.check().ok  # by now the pipe on which it said that it is ready is closed
    fd = os.open(find_pipe(victim.pid, unread=False), os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, (1 << 50).to_bytes(8, sys.byteorder))
    os.close(fd)
    assert has_problem(victim.check(), "token")


def test_tree_finds_a_signal_too_many(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    pid = victim.check().data["child_0_pid"]
    os.kill(pid, signal.SIGRTMIN + 1)
    assert has_problem(victim.check(), "child 0", "one more signal")


def test_tree_finds_a_wrong_shared_counter(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    poke(victim.pid, victim.check().data["shared_at"] + 8, (1 << 40).to_bytes(8, sys.byteorder))
    assert has_problem(victim.check(), "child 0: shared counter")


def test_tree_finds_its_listening_socket_gone(begin: Start, tmp_path: Path) -> None:
    victim = begin("tree", "--dir", tmp_path)
    Path(victim.check().data["socket"]).unlink()
    assert has_problem(victim.check(), "tree.sock: connect")


def find_bytes(pid: int, wanted: bytes) -> int:
    """Find where in a process's writable memory some bytes are."""
    with open_memory(pid) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if " rw-p " not in line:
                continue
            begin, end = (int(n, 16) for n in line.split()[0].split("-"))
            mem.seek(begin)
            if (at := mem.read(end - begin).find(wanted)) >= 0:
                return begin + at
    raise AssertionError("not found")


def test_pyheap_finds_a_changed_byte(begin: Start) -> None:
    victim = begin("pyheap", "--size-mb", 1, "--mutate", 0)
    item = pyheap.make_item(3, 0)
    assert isinstance(item, bytes)
    flip(victim.pid, find_bytes(victim.pid, item) + 1000)
    report = victim.check()
    assert has_problem(report, "item 3, version 0: wanted")
    assert has_problem(report, "item 3", "hash")


def test_pyheap_finds_a_changed_row() -> None:
    problems: list[str] = []
    database = pyheap.Database()
    for _ in range(3):
        database.insert()
    database.check(problems.append)
    assert problems == []
    database.db.execute("update beats set word = 'x' where n = 1")
    database.db.execute("delete from beats where n = 2")
    database.db.execute("insert into beats values (9, 'y')")
    database.check(problems.append)
    database.db.close()
    assert [p.split(":")[1] for p in problems] == [" row 1", " row 2", " row 9 should not be there"]


def test_forker_finds_a_changed_page_and_its_children_do(begin: Start) -> None:
    victim = begin("forker", "--beat-ms", 2, "--hold-ms", 5, "--size-kb", 256)
    flip(victim.pid, victim.check().data["mem_at"] + 63 * PAGE + 77)
    assert has_problem(victim.check(), "page 63", "byte 77")


def test_mapper_finds_changed_bytes_and_mappings(begin: Start) -> None:
    victim = begin("mapper", "--beat-us", 100_000_000)
    base = victim.check().data["base_at"]
    slot = 33 * PAGE
    flip(victim.pid, base + 30 * slot + 2 * PAGE + 9)
    flip(victim.pid, base + 60 * slot + PAGE)
    report = victim.check()
    assert has_problem(report, "slot 30, page 2", "byte 9 is wrong")
    assert has_problem(report, "slot 60, page 1", "wanted zeros")


def test_a_failing_start_says_why(binaries: dict[str, Path], tmp_path: Path) -> None:
    argv: list[str | Path]
    argv = [binaries["piggie"], "--report", tmp_path / "r", "--file", tmp_path / "no/dir/file"]
    with pytest.raises(VictimError, match=r"open .*No such file"):
        start(argv)
    with pytest.raises(VictimError, match="no such option: --wrong"):
        start([binaries["piggie"], "--wrong"])


def test_another_process_with_the_pid_is_not_the_victim(begin: Start) -> None:
    victim = begin("dirtier", "--size-mb", 1)
    other = Victim(victim.pid, victim.report_path, start_time=1)
    assert not other.alive()
    assert other.terminate() is None
    with pytest.raises(VictimError, match="gone"):
        other.check()
    assert victim.alive()


def test_a_victim_that_is_a_child_is_reaped(binaries: dict[str, Path], tmp_path: Path) -> None:
    report = tmp_path / "r"
    libc = ctypes.CDLL(None)
    pr_set_child_subreaper = 36
    assert libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        victim = Victim(start([binaries["mapper"], "--report", report]), report)
    finally:
        libc.prctl(pr_set_child_subreaper, 0, 0, 0, 0)
    assert victim.terminate() == 0
    assert not Path(f"/proc/{victim.pid}").exists()


def test_in_the_foreground_it_keeps_its_stdio(binaries: dict[str, Path], tmp_path: Path) -> None:
    argv = [str(binaries["mapper"]), "--foreground", "--report", str(tmp_path / "r")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        assert Victim(process.pid, tmp_path / "r").check().ok
        process.terminate()
    assert process.returncode == 0


def test_harness_as_a_command(binaries: dict[str, Path], tmp_path: Path) -> None:
    def harness(*args: object) -> tuple[int, dict[str, object]]:
        argv = [sys.executable, str(binaries["harness"]), *map(str, args)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    report = tmp_path / "r"
    status, started = harness("start", "--", binaries["mapper"], "--report", report)
    pid = started["pid"]
    assert status == 0
    assert harness("alive", pid, "--start-time", started["start_time"]) == (0, {"alive": True})
    status, checked = harness("check", pid, report)
    assert (status, checked["ok"]) == (0, True)
    assert harness("stop", pid) == (0, {"stopped": True, "status": None})
    assert harness("alive", pid) == (1, {"alive": False})
    status, checked = harness("check", pid, report)
    assert status == 1
    assert "error" in checked
