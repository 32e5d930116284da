"""`phaul demo`, and `local:` with it: the whole command on one machine, with the real CRIU."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engine.conftest import SLOW, StartVictim, copies_of, counts_on
from tests.victims.harness import Victim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


def phaul(home: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "PHAUL_STATE": str(home / "state"),
        "PHAUL_AGENT_DIR": str(home / "incoming"),
    }
    return subprocess.run(
        [sys.executable, "-m", "phaul", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * SLOW,
        check=False,
        env=environment,
    )


def all_end() -> bool:
    """Whether no process of phaul is left, soon: an init ends after the last that it reaps."""
    until = time.monotonic() + 20 * SLOW
    while processes():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def processes() -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.add((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return {words for words in found if "phaul" in words and "pytest" not in words}


def test_the_demo_moves_a_process_and_leaves_nothing(tmp_path: Path) -> None:
    done = phaul(tmp_path, "demo", "--size", "16M")
    assert done.returncode == 0, done.stderr
    assert "it has counted on from" in done.stdout
    assert all_end(), processes()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_local_moves_a_victim_whole(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("dirtier", "--size-mb", 16, "--kinds", "private,shared")
    first = before.check(60 * SLOW)
    done = phaul(tmp_path, "migrate", before.pid, "local:", "--max-downtime", "60s", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["destination_pid"] == before.pid
    copies = copies_of(before.pid)
    assert len(copies) == 1
    assert not before.alive()
    moved = Victim(copies[0], before.report_path)
    counts_on(moved, first.counter)
    moved.terminate()
    assert all_end(), processes()


def test_nothing_stays_of_one_that_fails(victim: StartVictim, tmp_path: Path) -> None:
    before = victim("piggie", "--file", tmp_path / "count")
    done = phaul(tmp_path, "migrate", before.pid, "local:", "--tcp", "keep", "--criu", "/bin/false")
    assert done.returncode == 3, done.stderr
    assert before.check(60 * SLOW).ok
    assert all_end(), processes()
