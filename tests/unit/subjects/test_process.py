import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from phaul.errors import SubjectError
from phaul.subjects.process import examine
from tests.unit.conftest import state

ROOT = Path(__file__).resolve().parents[3]


def refused(pid: int, said: str) -> SubjectError:
    with pytest.raises(SubjectError, match=said) as caught:
        examine(pid, "source")
    assert caught.value.host == "source"
    return caught.value


def test_a_process(victim: "subprocess.Popen[bytes]") -> None:
    subject = examine(victim.pid)
    assert subject.name == "sleep"
    assert subject.alive()
    assert subject.memory_bytes() > 0
    assert subject.fate() == f"still running here, PID {victim.pid}"


@pytest.mark.parametrize("pid", [0, -1, -(2**40)])
def test_what_is_no_pid(pid: int) -> None:
    refused(pid, "is not a PID")


@pytest.mark.parametrize("pid", [2**22 + 1, 2**70])
def test_one_that_does_not_exist(pid: int) -> None:
    assert "container" in refused(pid, "does not exist").remedy


@pytest.mark.skipif(
    "kthreadd" not in Path("/proc/2/comm").read_text() if Path("/proc/2").exists() else True,
    reason="no kernel thread in sight",
)
def test_a_kernel_thread() -> None:
    refused(2, "is a kernel thread")


def test_a_thread() -> None:
    found: list[int] = []
    done, stop = threading.Event(), threading.Event()

    def run() -> None:
        found.append(threading.get_native_id())
        done.set()
        stop.wait()

    thread = threading.Thread(target=run)
    thread.start()
    done.wait()
    try:
        refused(found[0], f"is a thread of process {os.getpid()}")
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def zombie() -> Iterator[int]:
    with subprocess.Popen(["true"]) as process:
        while state(process.pid) != "Z":
            time.sleep(0.01)
        yield process.pid


def test_a_zombie(zombie: int) -> None:
    refused(zombie, f"is dead, waiting for its parent {os.getpid()}")


def test_phaul_itself() -> None:
    refused(os.getpid(), "is phaul itself")


def test_what_phaul_runs_in() -> None:
    refused(os.getppid(), "is what phaul runs in")


def test_pid_1() -> None:
    refused(1, "is what phaul runs in|is the init")


PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17


def test_one_under_a_debugger(victim: "subprocess.Popen[bytes]") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_SEIZE, victim.pid, None, None) == 0, os.strerror(ctypes.get_errno())
    try:
        error = refused(victim.pid, f"is traced by process {os.getpid()}")
        assert "debugger" in error.remedy
    finally:
        # Only a stopped tracee can be let go.
        os.kill(victim.pid, signal.SIGSTOP)
        os.waitpid(victim.pid, 0)
        libc.ptrace(PTRACE_DETACH, victim.pid, None, None)


def test_one_of_another_user(victim: "subprocess.Popen[bytes]", unprivileged: list[str]) -> None:
    program = "import sys; from phaul.subjects.process import examine; examine(int(sys.argv[1]))"
    done = subprocess.run(
        [*unprivileged, sys.executable, "-c", program, str(victim.pid)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SubjectError" in done.stderr
    assert "belongs to user 0" in done.stderr
    assert "run phaul as root" in done.stderr


def test_a_stopped_one(victim: "subprocess.Popen[bytes]") -> None:
    subject = examine(victim.pid)
    os.kill(victim.pid, signal.SIGSTOP)
    while state(victim.pid) != "T":
        time.sleep(0.01)
    assert subject.alive()
    assert f"still here, but stopped, PID {victim.pid}" in subject.fate()
    assert f"kill -CONT {victim.pid}" in subject.fate()


def test_one_that_ended(victim: "subprocess.Popen[bytes]") -> None:
    subject = examine(victim.pid)
    victim.kill()
    while state(victim.pid) != "Z":
        time.sleep(0.01)
    for _ in range(2):
        assert not subject.alive()
        assert subject.fate() == f"no longer here: PID {victim.pid} has ended"
        assert subject.memory_bytes() == 0
        victim.wait()


def test_a_later_process_of_the_same_pid_is_another(victim: "subprocess.Popen[bytes]") -> None:
    earlier = replace(examine(victim.pid), start=1)
    assert not earlier.alive()
    assert "no longer here" in earlier.fate()


@pytest.mark.parametrize("name", ["a) R 1 (b", "sp ace", "new\nline", ")", ""])
def test_names_that_look_like_fields(name: str) -> None:
    program = (
        "import ctypes, sys, time\n"
        "ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)\n"
        "print(flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            subject = examine(process.pid)
            assert subject.name == name
            assert "still running here" in subject.fate()
        finally:
            process.kill()
