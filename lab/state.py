"""Run directories: one per lab, with what another process needs to reach it.  Runs on the host.

    run/NAME/lab.json       the owner, the keeper, what the guests are made of
    run/NAME/keeper.sock    the keeper's requests
    run/NAME/G.json         guest G while it runs: QEMU's PID, its agent's port
    run/NAME/G.console, G.log, G.qmp, G.lan, G.img

A PID alone may be a later process's; each is kept with its start time.
"""

import json
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from . import host
from .errors import HostError, LabError
from .warden import start_time

_SOCKET_PATH_LIMIT = 107
_LONGEST_NAME = "keeper.sock"
_KEEPER_TIMEOUT = 30.0


def identify(pid: int) -> list[Any]:
    """Return what tells a process from every other: its PID and start time."""
    return [pid, start_time(pid)]


def lives(identity: list[Any]) -> bool:
    """Whether the process runs."""
    try:
        return start_time(int(identity[0])) == str(identity[1])
    except (OSError, ValueError, IndexError):
        return False


def read(path: Path) -> dict[str, Any]:
    """Read a state file; empty when it is not there."""
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return state


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state file; a reader sees the old one or the new one whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(state))
    new.rename(path)


def _top() -> Path:
    folder = host.cache() / "run"
    folder.mkdir(exist_ok=True)
    return folder


def create(identity: list[Any]) -> Path:
    """Make a run directory for this owner, and remove those whose keeper was killed.

    Raises:
        HostError: the cache folder's path is too long for sockets in it.
    """
    for folder in _top().iterdir():
        owner = folder.name.split("-")[1:3]
        if len(owner) == 2 and not lives([int(owner[0]), owner[1]]):
            shutil.rmtree(folder, ignore_errors=True)
    run_dir = Path(tempfile.mkdtemp(prefix=f"lab-{identity[0]}-{identity[1]}-", dir=_top()))
    if len(f"{run_dir}/{_LONGEST_NAME}") > _SOCKET_PATH_LIMIT:
        run_dir.rmdir()
        raise HostError(f"{run_dir}: too long for a socket's path: set PHAUL_LAB to a shorter one")
    return run_dir


def running() -> list[Path]:
    """Return the run directories of labs that are up, the newest last."""
    found = []
    for path in _top().glob("*/lab.json"):
        state = read(path)
        if lives(state.get("owner", [])) and lives(state.get("keeper", [])):
            found.append((path.stat().st_mtime, path.parent))
    return [folder for _, folder in sorted(found)]


def ask_keeper(run_dir: Path, **request: object) -> dict[str, Any]:
    """Send the keeper one request; return its answer.

    Raises:
        LabError: it is not there, or could not do it.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_KEEPER_TIMEOUT)
            sock.connect(str(run_dir / "keeper.sock"))
            with sock.makefile("rw", encoding="utf-8") as file:
                file.write(json.dumps(request) + "\n")
                file.flush()
                answer: dict[str, Any] = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise LabError(f"the keeper of {run_dir} is silent ({error}): start a new lab") from error
    if "error" in answer:
        raise LabError(f"the keeper of {run_dir}, {request['do']}: {answer['error']}")
    return answer
