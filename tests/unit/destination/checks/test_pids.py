import os
import subprocess
import threading
from pathlib import Path

import pytest

from phaul.destination.checks import pids
from phaul.protocol.preflight import Finding, Level, PidsNeed
from tests.unit.destination.checks.conftest import FakeHost, only


def look(host: FakeHost, *numbers: int) -> list[Finding]:
    return pids.look([PidsNeed(pids=numbers)], host.context())


def test_free(host: FakeHost) -> None:
    host.process(100)
    assert only(look(host, 4242), Level.OK, "pids").what == "1 PID is free"
    assert only(look(host, 4242, 4243, 4242), Level.OK, "pids").what == "2 PIDs are free"


def test_taken_by_a_process(host: FakeHost) -> None:
    host.process(4242, "sshd")
    found = only(look(host, 4242), Level.NO, "pids")
    assert found.what == "PID 4242 is taken there by sshd"
    assert found.remedy.startswith("end it there, or move a container")


def test_taken_by_a_thread(host: FakeHost) -> None:
    host.process(4242, "worker", tgid=4000)
    found = only(look(host, 4242), Level.NO, "pids")
    assert found.what == "PID 4242 is taken there by a thread of worker (PID 4000)"


def test_taken_by_the_kernel(host: FakeHost) -> None:
    host.process(42, "kworker/0:1", flags=0x00200000)
    assert "cannot be ended" in only(look(host, 42), Level.NO, "pids").remedy


@pytest.mark.parametrize("what", ["session", "process group"])
def test_taken_by_what_a_leader_left(host: FakeHost, what: str) -> None:
    host.process(5000, "cat", **{what.split()[-1]: 4242})
    found = only(look(host, 4242), Level.NO, "pids")
    assert found.what == f"PID 4242 is taken there by the {what} of cat (PID 5000)"


@pytest.mark.parametrize("name", ["a) R 1 (b", "new\nline", ")", "\x1b[31mred"])
def test_odd_names(host: FakeHost, name: str) -> None:
    host.process(4242, name)
    said = only(look(host, 4242), Level.NO, "pids").what
    assert said.isprintable()
    assert said.startswith("PID 4242 is taken there by ")


def test_one_that_ends_meanwhile(host: FakeHost) -> None:
    (host.proc / "4242").mkdir()
    assert "has just ended" in only(look(host, 4242), Level.NO, "pids").what


def test_beyond_the_last_one(host: FakeHost) -> None:
    found = only(look(host, 40_000, 50_000, 32_767), Level.NO, "pids")
    assert found.what == "PIDs up to 50000 are needed, there they end at 32767 (2 above)"
    assert found.remedy == "there: `sysctl -w kernel.pid_max=50001`"
    only(look(host, 32_768), Level.NO, "pids")
    only(look(host, 32_767), Level.OK, "pids")
    (host.proc / "sys/kernel/pid_max").unlink()
    only(look(host, 40_000), Level.OK, "pids")


def test_the_largest_there_is(host: FakeHost) -> None:
    assert "pid_max=4194304`" in only(look(host, 1 << 22), Level.NO, "pids").remedy


def test_processes_and_threads_of_this_host(host: FakeHost) -> None:
    ready, stop = threading.Event(), threading.Event()
    found: list[int] = []

    def run() -> None:
        found.append(threading.get_native_id())
        ready.set()
        stop.wait()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    host.proc = Path("/proc")
    try:
        findings = look(host, os.getpid(), found[0])
    finally:
        stop.set()
        thread.join()
    said = {finding.what for finding in findings if finding.level is Level.NO}
    assert any(s.startswith(f"PID {os.getpid()} is taken") for s in said)
    assert any(f"(PID {os.getpid()})" in s and "a thread of" in s for s in said)


def test_a_session_without_its_leader(host: FakeHost) -> None:
    # The leader starts another process in its session, says its PID, and ends.
    program = "sleep 600 >/dev/null 2>&1 & echo $$ $!"
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, text=True, check=True, start_new_session=True
    )
    leader, other = (int(word) for word in done.stdout.split())
    host.proc = Path("/proc")
    try:
        (said,) = [f.what for f in look(host, leader) if str(leader) in f.what]
        assert said == f"PID {leader} is taken there by the session of sleep (PID {other})"
    finally:
        os.kill(other, 9)
