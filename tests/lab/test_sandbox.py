import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from lab import Bind, CommandError, DeadlineError, Sandbox, SandboxError
from lab.warden import CGROUP_PREFIX
from tests.lab.leftovers import ROOT, processes, start_owner, wait_until

pytestmark = pytest.mark.engine

DUMP_AND_RESTORE = r"""
set -eu
mkdir /tmp/images; cd /tmp/images
setsid sleep 1000 </dev/null >/dev/null 2>&1 & pid=$!
until [ "$(cat /proc/$pid/comm)" = sleep ]; do sleep 0.01; done
criu dump -t $pid -D . -v4 -o dump.log --network-lock nftables --shell-job
wait $pid || true
[ ! -e /proc/$pid ]
criu restore -D . -v4 -o restore.log --shell-job -d
[ "$(cat /proc/$pid/comm)" = sleep ]
"""


def test_its_status_and_streams_are_the_commands() -> None:
    result = Sandbox().run(["sh", "-c", "cat; echo err >&2; exit 7"], stdin=b"in")
    assert (result.status, result.stdout, result.stderr) == (7, b"in", b"err\n")


def test_a_signals_status_is_a_shells() -> None:
    assert Sandbox().run(["sh", "-c", "kill -TERM $$"]).status == 128 + signal.SIGTERM


def test_a_command_that_must_succeed() -> None:
    with pytest.raises(CommandError, match=r"sandbox: 'sh -c .*' ended with status 1: why"):
        Sandbox().run(["sh", "-c", "echo why >&2; exit 1"], check=True)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(SandboxError, match="nosuch"):
        Sandbox().run(["nosuch"])


def test_a_bind_that_is_not_there() -> None:
    with pytest.raises(SandboxError, match="/nosuch on /x"):
        Sandbox(binds=["/nosuch:/x"]).run(["true"])


def test_what_it_sees(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("seen")
    script = """
        set -e
        [ $$ = 2 ]; cat /seen/file; echo back >/seen/reply
        touch /fixed/no 2>/dev/null || echo -n ,ro
        ! touch /usr/x 2>/dev/null; ! touch /x 2>/dev/null
        for dir in /run /tmp /var/tmp /root /dev/shm; do touch $dir/x; done
        mkdir /sys/fs/cgroup/inner; echo $$ >/sys/fs/cgroup/inner/cgroup.procs
        ping -c1 -W5 127.0.0.1 >&2; echo -n ",$PWD,$A"
    """
    binds: list[Bind | str] = [f"{tmp_path}:/seen", Bind(tmp_path, "/fixed", read_only=True)]
    result = Sandbox(binds=binds, cwd="/tmp", env={"A": "b"}).run(["sh", "-c", script], check=True)
    assert result.text == "seen,ro,/tmp,b"
    assert (tmp_path / "reply").read_text() == "back\n"
    assert not (tmp_path / "no").exists()


def test_criu_dumps_and_restores_in_it() -> None:
    Sandbox().run(["sh", "-c", DUMP_AND_RESTORE], check=True)


def test_zombies_are_reaped() -> None:
    script = "(setsid sleep 0.05 &); sleep 0.4; grep -l '^State:.Z' /proc/[0-9]*/status || true"
    assert Sandbox().run(["sh", "-c", script]).text == ""


def test_signals_are_forwarded_and_descriptors_passed() -> None:
    inside, outside = os.pipe()
    script = f"trap 'echo caught >&{outside}; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with Sandbox().popen(
        ["bash", "-c", script], stdout=subprocess.PIPE, pass_fds=[outside]
    ) as process:
        os.close(outside)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 5
    with open(inside, "rb") as file:  # noqa: PTH123 (a descriptor)
        assert file.read() == b"caught\n"


def test_a_deadline_ends_everything_in_it() -> None:
    mark = uuid.uuid4().hex
    with pytest.raises(DeadlineError, match=r"took over 0\.3 s"):
        Sandbox(env={"MARK": mark}).run(["sh", "-c", "setsid sleep 600 & sleep 600"], timeout=0.3)
    assert processes(mark) == []


def test_the_command_line_passes_the_status_and_the_interrupt() -> None:
    command = [sys.executable, "-m", "lab", "sandbox", "--"]
    assert subprocess.run([*command, "sh", "-c", "exit 9"], cwd=ROOT, timeout=20).returncode == 9
    with subprocess.Popen(
        [*command, "sh", "-c", "echo ready; exec sleep 600"], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 128 + signal.SIGINT


@pytest.mark.parametrize("victim", ["owner", "warden"])
def test_a_killed_owner_or_warden_leaves_nothing(victim: str) -> None:
    mark = uuid.uuid4().hex
    mounts = Path("/proc/self/mountinfo").read_text()
    code = (
        "import os, time\nfrom lab import Sandbox\n"
        "sandbox = Sandbox(env={'M': os.environ['LAB_TEST_MARK']})\n"
        "process = sandbox.popen(['sh', '-c', 'setsid sleep 600 & sleep 600'])\n"
        "print('ready', process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with start_owner(code, mark) as owner:
        # a sandboxed process shows the host's PID here, and has the mark in its environment
        assert wait_until(lambda: len(processes(mark)) >= 4)
        (warden,) = [pid for pid in processes(mark) if _parent(pid) == owner.pid]
        cgroup = f"{CGROUP_PREFIX}{warden}-*"
        assert list(Path("/sys/fs/cgroup").rglob(cgroup))
        if victim == "warden":
            os.kill(warden, signal.SIGKILL)
            assert wait_until(lambda: set(processes(mark)) <= {owner.pid, warden})
        owner.kill()
        owner.wait(5)
    assert wait_until(lambda: not processes(mark)), processes(mark)
    assert Path("/proc/self/mountinfo").read_text() == mounts

    def cgroup_gone() -> bool:
        if victim == "warden":  # nobody was left to remove it: the next sandbox does
            Sandbox().run(["true"])
        return not list(Path("/sys/fs/cgroup").rglob(cgroup))

    assert wait_until(cgroup_gone)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_it_starts_fast() -> None:
    """Usually 0.1 s; a second is still no reason to avoid it."""
    begin = time.monotonic()
    Sandbox().run(["true"])
    assert time.monotonic() - begin < 1.5
