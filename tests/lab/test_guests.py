import io
import os
import re
import signal
from pathlib import Path

import pytest

from lab import CommandError, ConnectionLostError, DeadlineError, Lab, TransferError
from lab.host import cache
from lab.keeper import STOP_TIMEOUT
from tests.lab.leftovers import processes, start_owner, wait_until

pytestmark = pytest.mark.vm


def round_trip_ms(lab: Lab) -> float:
    text = lab.src.sh("ping -qc5 -i0.2 peer")
    found = re.search(r"= [\d.]+/([\d.]+)/", text)
    assert found
    return float(found[1])


def test_status_and_streams_pass_through(lab: Lab) -> None:
    result = lab.src.run(
        ["sh", "-c", 'cat; pwd; echo "$A" >&2; exit 7'], stdin=b"in\n", cwd="/tmp", env={"A": "b"}
    )
    assert (result.status, result.stdout, result.stderr) == (7, b"in\n/tmp\n", b"b\n")
    assert lab.dst.run(["sh", "-c", "kill -9 $$"]).status == 128 + signal.SIGKILL
    assert lab.dst.run(["nosuch"]).status == 127
    assert lab.dst.sh("hostname") == "dst\n"
    with pytest.raises(CommandError, match=r"src: .* status 1: why"):
        lab.src.sh("echo why >&2; false")


def test_much_input_and_output(lab: Lab) -> None:
    data = os.urandom(1 << 20) * 4
    assert lab.src.run(["cat"], stdin=io.BytesIO(data)).stdout == data


def test_a_command_is_followed_live_and_killed(lab: Lab) -> None:
    with lab.src.spawn(["sh", "-c", "echo one; read line; echo $line; sleep 600"], stdin=True) as c:
        lines = c.stdout.lines(20)
        assert next(lines) == "one"
        assert c.running
        c.write(b"two\n")
        assert next(lines) == "two"
        with pytest.raises(DeadlineError, match="still running"):
            c.wait(0.1)
        assert c.kill() == 128 + signal.SIGKILL


def test_a_command_dies_with_its_connection(lab: Lab) -> None:
    with lab.dst.spawn(["sleep", "60001"]) as command:
        lab.dst.sh("until pgrep -f 'sleep 6000[1]'; do sleep 0.1; done")
        assert command.running
    lab.dst.sh("while pgrep -f 'sleep 6000[1]'; do sleep 0.1; done")
    with pytest.raises(DeadlineError, match="killed"):
        lab.dst.run(["sleep", "60001"], timeout=0.5)


def test_files_go_in_and_out(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_bytes(os.urandom(3 << 20))
    (tmp_path / "in/run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "in/run").chmod(0o755)
    (tmp_path / "in/link").symlink_to("deep/file")
    lab.src.put([tmp_path / "in"], "/var/tmp/new")
    assert lab.src.sh("/var/tmp/new/in/run") == "ran\n"
    lab.src.get(["/var/tmp/new/in/deep", "/var/tmp/new/in/link"], tmp_path / "out")
    assert (tmp_path / "out/deep/file").read_bytes() == (tmp_path / "in/deep/file").read_bytes()
    assert (tmp_path / "out/link").readlink() == Path("deep/file")
    with pytest.raises(TransferError, match="nosuch"):
        lab.src.get(["/nosuch"], tmp_path)
    with pytest.raises(TransferError, match="nosuch"):
        lab.src.put([tmp_path / "nosuch"], "/tmp")


def test_clocks_agree(lab: Lab) -> None:
    ahead = lab.src.clock().seconds - lab.dst.clock().seconds
    assert abs(ahead) < 0.002


def test_huge_pages_are_set(lab: Lab) -> None:
    show = "cat /sys/kernel/mm/transparent_hugepage/enabled"
    assert "[never]" in lab.src.sh(show)
    lab.src.set_thp("always")
    assert "[always]" in lab.src.sh(show)
    lab.src.set_thp("never")


def test_shaping_changes_what_ping_sees(lab: Lab) -> None:
    lab.link.shape(rate_mbit=100, delay_ms=40)
    assert 80 < round_trip_ms(lab) < 160
    lab.link.shape(loss_percent=100)
    assert lab.src.run(["ping", "-c1", "-W1", "peer"]).status == 1
    lab.link.clear()
    assert round_trip_ms(lab) < 40


def test_a_cut_cable_carries_nothing(lab: Lab) -> None:
    lab.link.cut()
    try:
        assert lab.dst.sh("cat /sys/class/net/lan/carrier") == "0\n"
        assert lab.src.run(["ping", "-c1", "-W1", "peer"]).status != 0
    finally:
        lab.link.join()
    lab.src.sh("ping -c1 -W10 peer")


def test_ssh_needs_no_question(lab: Lab) -> None:
    lab.authorize()
    lab.authorize()
    assert lab.src.sh("ssh -o BatchMode=yes dst hostname", timeout=60) == "dst\n"


def test_criu_has_what_the_host_lacks(lab: Lab) -> None:
    assert "Looks good" in lab.src.sh(
        "criu check --feature mem_dirty_track 2>&1 && echo Looks good"
    )


def test_another_process_reaches_the_lab(lab: Lab) -> None:
    assert lab.run_dir
    other = Lab.attach(lab.run_dir.name)
    assert other.dst.sh("hostname") == "dst\n"
    other.close()
    assert lab.dst.running


def test_a_power_cut_keeps_what_was_synced(lab: Lab) -> None:
    lab.dst.sh("echo kept >/root/kept && sync /root/kept && sync /root; echo lost >/run/lost")
    with lab.dst.spawn(["sleep", "600"]) as command:
        lab.dst.power_cut()
        with pytest.raises(ConnectionLostError, match=r"dst: 'sleep 600'.*(?s:.)*console"):
            command.wait(10)
    assert not lab.dst.running
    with pytest.raises(ConnectionLostError, match="not up"):
        lab.dst.sh("true")
    lab.dst.boot()
    assert lab.dst.sh("cat /root/kept; ls /run/lost 2>&1 || true").startswith("kept\nls:")
    assert abs(lab.dst.clock().seconds) < 0.005
    lab.src.sh("ping -c1 -W10 peer")


@pytest.mark.parametrize("victim", ["owner", "keeper"])
def test_a_killed_owner_or_keeper_leaves_nothing(victim: str) -> None:
    """The guests need not have come up for that."""
    code = (
        "import time\nfrom lab import Lab\nimport lab.guest\n"
        "lab.guest.Guest.wait_up = lambda guest: (print('ready', flush=True), time.sleep(600))\n"
        "Lab(memory_mib=256, cpus=1).start()\n"
    )
    with start_owner(code, "none") as owner:
        (run_dir,) = (cache() / "run").glob(f"lab-{owner.pid}-*")
        assert wait_until(lambda: len(processes(str(run_dir))) == 3)
        if victim == "owner":
            owner.kill()
        else:
            (keeper,) = [p for p in processes(str(run_dir)) if _is_keeper(p)]
            os.kill(keeper, signal.SIGKILL)
        # a keeper that was killed is the owner's to reap
        assert wait_until(lambda: not processes(str(run_dir)), STOP_TIMEOUT)
        owner.kill()
        owner.wait(5)
    if victim == "owner":
        assert wait_until(lambda: not run_dir.exists())
    else:  # nobody was left to remove it: the next lab does
        from lab import state

        state.create(state.identify(os.getpid())).rmdir()
        assert not run_dir.exists()


def _is_keeper(pid: int) -> bool:
    return b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
