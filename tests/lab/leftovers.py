"""What a lab or sandbox may leave on the host, looked for by its owner's marks."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def processes(mark: str) -> list[int]:
    """Return the PIDs, all but our own, whose command line or environment has the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in text:
            found.append(int(folder.name))
    return found


def start_owner(code: str, mark: str) -> "subprocess.Popen[str]":
    """Run Python code that prints a line when it is ready; what it starts has the mark."""
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "LAB_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    line = owner.stdout.readline()
    assert re.match("ready", line), f"the owner said {line!r}"
    return owner


def wait_until(holds: Callable[[], bool], timeout: float = 10) -> bool:
    """Poll until it holds."""
    end = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
