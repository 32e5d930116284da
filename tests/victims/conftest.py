"""What the victims' own tests share: victims that are started and ended, and their memory."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.victims.build import build
from tests.victims.harness import Report, Victim, start

PAGE = 4096
Start = Callable[..., Victim]


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    # The sandbox has no compiler: there they are built already.
    if built := os.environ.get("PHAUL_VICTIMS"):
        return {path.stem: path for path in Path(built).iterdir() if path.suffix in ("", ".py")}
    return build(tmp_path_factory.mktemp("victims"))


@pytest.fixture
def begin(binaries: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    running: list[Victim] = []

    def begin(name: str, *options: object) -> Victim:
        report = tmp_path / f"{name}-{len(running)}.json"
        pid = start([binaries[name], *map(str, options), "--report", report])
        victim = Victim(pid, report)
        running.append(victim)
        return victim

    yield begin
    for victim in running:
        victim.terminate()


def open_memory(pid: int) -> io.FileIO:
    """Open a process's memory; skips the test where that is forbidden."""
    try:
        return Path(f"/proc/{pid}/mem").open("r+b", buffering=0)
    except PermissionError:
        pytest.skip("the memory of other processes cannot be opened here")


def poke(pid: int, address: int, data: bytes) -> None:
    """Write into a process's memory."""
    with open_memory(pid) as mem:
        mem.seek(address)
        mem.write(data)


def flip(pid: int, address: int) -> None:
    """Change one byte of a process's memory."""
    with open_memory(pid) as mem:
        mem.seek(address)
        old = mem.read(1)
    poke(pid, address, bytes([old[0] ^ 0x40]))


def has_problem(report: Report, *words: str) -> bool:
    """Whether one of the problems holds all these words."""
    return not report.ok and any(all(w in p for w in words) for p in report.problems)
