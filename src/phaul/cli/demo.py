"""`phaul demo`: a process moved before your eyes, on this machine alone.

Runs on one host that is source and destination at once: the process goes to another PID namespace
(`local:`), by all the steps of a migration to another machine but the network.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from phaul.cli.moving import start
from phaul.cli.targets import LOCAL, Reach, connector
from phaul.cli.values import SIZE
from phaul.errors import PreflightError
from phaul.plan import OnTimeout, Wishes

__all__ = ["command"]

_MIB: Final = 1 << 20
_READY_S: Final = 20.0
_GOES_ON_S: Final = 10.0
_PAGE: Final = 4096

# Counts each 5 ms and writes down count and longest gap, changes pages, and never has a file open
# for longer than a write.
_COUNTER: Final = """
import os, sys, time
path, size = sys.argv[1], int(sys.argv[2])
memory = bytearray(os.urandom(4096)) * (size // 4096)
count = longest = 0
last = time.time()
while True:
    count += 1
    memory[count * 4096 % size] = count % 256
    now = time.time()
    longest = max(longest, now - last)
    last = now
    with open(path, "w") as file:
        file.write(f"{count} {longest * 1000:.0f}\\n")
    time.sleep(0.005)
"""


@click.command()
@click.option("--size", type=SIZE, default=64 * _MIB, help="The memory of the process (64M).")
@click.option("-v", "--verbose", count=True, help="More of what is going on.")
def command(size: int, verbose: int) -> int:
    """See a process move, on this machine alone: to another PID namespace, by `local:`.

    It counts; afterwards it is asked whether it has missed a beat, and then it is ended.
    """
    if os.geteuid() != 0:
        raise PreflightError("only root can move processes", remedy="run it with sudo")
    size = max(size // _PAGE, 1) * _PAGE
    with TemporaryDirectory(prefix="phaul-demo-") as folder:
        path = Path(folder) / "count"
        with _counter(path, size) as pid:
            before, _ = _read(path)
            click.echo(f"PID {pid} counts, {size / _MIB:.0f} MiB: it is at {before}")
            wishes = Wishes(on_timeout=OnTimeout.CUTOVER)
            connect = connector(Reach(LOCAL))
            status = start(pid, LOCAL, connect, wishes, "criu", verbose=verbose)
            if status > 1:
                return status
            return _tell(path, pid, before)


def _tell(path: Path, pid: int, before: int) -> int:
    found = _nested(pid)
    after, gap = _read(path)
    until = time.monotonic() + _GOES_ON_S
    while found and (later := _read(path)[0]) <= after:
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    if not found or later <= after:
        click.echo("it does not count on: something is wrong", err=True)
        return 1
    click.echo(
        f"it has counted on from {before} to {later}, its longest gap was {gap} ms;\n"
        f"it is PID {pid} in a PID namespace of its own, from here PID {found}"
    )
    return 0


@contextmanager
def _counter(path: Path, size: int) -> Iterator[int]:
    """A counting process; it is ended, wherever it is then."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _COUNTER, str(path), str(size)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        until = time.monotonic() + _READY_S
        while _read(path)[0] < 20:
            if process.poll() is not None or time.monotonic() > until:
                raise PreflightError("the process for the demo does not start")
            time.sleep(0.02)
        yield process.pid
    finally:
        moved = _nested(process.pid)
        if process.poll() is None:
            process.kill()
        process.wait()
        if moved:
            _end(moved)


def _end(pid: int) -> None:
    """End a process that is not our child, and wait until it is gone."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        until = time.monotonic() + _GOES_ON_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.01)


def _nested(pid: int) -> int:
    """The process that is `pid` in a PID namespace below this one, by its PID here; 0 for none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                lines = (entry / "status").read_text(errors="replace").splitlines()
                pids = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
                if len(pids) > 1 and pids[-1] == str(pid) and _counts(entry):
                    return int(entry.name)
    return 0


def _counts(entry: Path) -> bool:
    return _COUNTER.encode() in (entry / "cmdline").read_bytes()


def _read(path: Path) -> tuple[int, int]:
    """The count and the longest gap in milliseconds, zeros if they are not there yet."""
    with suppress(OSError, ValueError):
        count, gap = path.read_text().split()
        return int(count), int(gap)
    return 0, 0
