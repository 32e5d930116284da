"""The machine that a move is measured on: its cgroups, which count, and what of it matters.

Used inside, where CRIU works.  Who moves, who is moved and the link are in groups of their own.
"""

import os
import platform
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from phaul import __version__
from phaul.cgroups import Cgroups

__all__ = ["Group", "facts", "free_mb", "migrate_options", "mounted", "tracked"]

_FOLDER: Final = Path("/run/phaul-bench")
_TO_END_S: Final = 30.0
_INTO: Final = ("/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"')


class Group:
    """A cgroup of the bench; made here, afresh."""

    def __init__(self, name: str) -> None:
        found = Cgroups.find()
        if found is None:
            raise SystemExit("there is no cgroup v2 here, and so nobody counts CPU time")
        self._cgroups, self.name = found, f"/bench-{name}"
        found.make(self.name)

    @property
    def _path(self) -> Path:
        return self._cgroups.point / self.name.lstrip("/")

    def cpu_s(self) -> float:
        """The CPU time that all has taken that was ever in it, or below it."""
        fields = dict(line.split() for line in (self._path / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) / 1e6

    def put(self, pid: int) -> None:
        """Put a process in."""
        self._cgroups.move(pid, self.name)

    def start(
        self, argv: Sequence[str], said: Path, fds: Sequence[int] = (), **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a command in it; its standard output goes to `said`, its errors beside that."""
        with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
            return subprocess.Popen(
                [*_INTO, str(self._path / "cgroup.procs"), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=fds,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def end(self) -> None:
        """End all that is in it, and wait until it is gone."""
        self._cgroups.kill(self.name, _TO_END_S)

    def remove(self) -> None:
        """Remove it, and what a move that was ended has left below it; nothing is in it."""
        for folder, _, _ in os.walk(self._path, topdown=False):
            os.rmdir(folder)  # noqa: PTH106 -- as it is walked


@contextmanager
def mounted() -> Iterator[Path]:
    """A folder in memory with room for all images: a disk's speed is not what is compared."""
    _FOLDER.mkdir(mode=0o700)
    options = "size=95%,mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(_FOLDER)]
    try:
        subprocess.run(mount, check=True, timeout=_TO_END_S)
        yield _FOLDER
    finally:
        subprocess.run(["umount", str(_FOLDER)], check=False, timeout=_TO_END_S)
        _FOLDER.rmdir()


def tracked() -> bool:
    """Whether dirty memory is tracked here."""
    probe = ["criu", "check", "--feature", "mem_dirty_track"]
    done = subprocess.run(probe, capture_output=True, check=False, timeout=_TO_END_S)
    return done.returncode == 0


def free_mb() -> float:
    """The memory that is free, in MiB."""
    return _meminfo("MemAvailable") / 1024


def _meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def migrate_options() -> Collection[str]:
    """The options of `phaul migrate` as it is here."""
    from phaul.cli.migrate import command

    return {name for parameter in command.params for name in parameter.opts}


def facts(*, tracks: bool) -> dict[str, str]:
    """What of this machine matters."""
    said = subprocess.run(["criu", "--version"], capture_output=True, text=True, check=True)
    return {
        "phaul": __version__,
        "CRIU": said.stdout.split()[1],
        "kernel": platform.release().partition("-")[0],
        "dirty memory": "tracked" if tracks else "not tracked",
        "processors": str(os.cpu_count()),
        "memory": f"{_meminfo('MemTotal') / (1 << 20):.0f} GiB",
        "Python": platform.python_version(),
        "images": "in memory (tmpfs), on both hosts",
    }
