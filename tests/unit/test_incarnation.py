import os
import subprocess
from pathlib import Path

import msgspec

from phaul.incarnation import Incarnation


def test_this_process() -> None:
    me = Incarnation.of(os.getpid())
    assert me
    assert me.pid == os.getpid()
    assert me.alive()


def test_another_of_the_same_pid_is_another() -> None:
    me = Incarnation.of(os.getpid())
    assert me
    assert not msgspec.structs.replace(me, start=me.start + 1).alive()
    assert not msgspec.structs.replace(me, boot="another").alive()


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        it = Incarnation.of(child.pid)
        assert it
        assert it.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}/stat").exists()
        assert not it.alive()
    assert Incarnation.of(child.pid) is None
