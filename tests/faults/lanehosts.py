"""The two hosts of a lane: those of tests/hosts, with a small disk for phaul, and cgroups told."""

import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.hosts.machine import GROUP, Host, Hosts, two_hosts

__all__ = ["DISK", "clear", "lane_hosts", "leftovers", "remember"]

DISK: Final = Path("/var/lib/phaul")
_SIZE: Final = "48m"
_JOURNAL: Final = re.compile(r"file /var/lib/phaul/incoming/[^/]+(/(\.note-)?journal\.json)?")


@contextmanager
def lane_hosts() -> Iterator[Hosts]:
    """The two hosts, each with a small file system where phaul keeps its things."""
    cache = os.environ.get("PYTHONPYCACHEPREFIX", "/pycache")
    with two_hosts("/phaul/src:/site", cache, sshd=False) as hosts:
        for host in hosts.both:
            host.path(DISK).mkdir(mode=0o700, exist_ok=True)
            options = f"size={_SIZE},mode=700"
            host.run(["mount", "-t", "tmpfs", "-o", options, f"{host.name}-disk", DISK], check=True)
        try:
            yield hosts
        finally:
            for host in hosts.both:
                host.run(["umount", "--lazy", DISK])


def remember(hosts: Hosts) -> None:
    """Take what is there now for what belongs there."""
    for host in hosts.both:
        host.remember()


def _cgroups(host: Host) -> list[str]:
    return [f"cgroup {path}" for path in _ours(host)]


def _ours(host: Host) -> list[Path]:
    """The cgroups that phaul made there, what is below before what is above."""
    top = GROUP if host.depth > 1 else GROUP.parent
    found = [path for path in top.rglob("phaul*") if path.is_dir()]
    if host.depth == 1:
        found = [path for path in found if not path.is_relative_to(GROUP)]
    return sorted(found, reverse=True)


def leftovers(
    host: Host, *, but: Collection[int] = (), journals: bool = False, timeout: float = 5.0
) -> list[str]:
    """What is there and does not belong there, and does not go away within the time.

    With `journals` an agent's journal may stay, which is kept for a source that heard no last word.
    """
    until = time.monotonic() + timeout
    while True:
        left = [*host.leftovers(but=but, timeout=0), *_cgroups(host)]
        left = [line for line in left if not line.startswith("file /srv/")]  # the victims' own
        if journals:
            left = [line for line in left if not _JOURNAL.fullmatch(line)]
        if not left:
            return []
        if time.monotonic() > until:
            outer = {pid: here for pid, (here, _) in host.processes().items()}
            return [line + _at(outer, line) for line in left]
        time.sleep(0.03)


def _at(outer: dict[int, int], line: str) -> str:
    """What a process that is left is at, as the kernel has it: "" for anything else."""
    found = re.match(r"process (\d+) ", line)
    pid = outer.get(int(found[1])) if found else None
    if pid is None:
        return ""
    with suppress(OSError):
        proc = Path(f"/proc/{pid}")
        wanted = ("State", "PPid", "TracerPid", "SigPnd", "ShdPnd")
        status = [
            " ".join(text.split())
            for text in (proc / "status").read_text().splitlines()
            if text.startswith(wanted)
        ]
        waits = " < ".join(text.split()[-1] for text in (proc / "stack").read_text().splitlines())
        group = (proc / "cgroup").read_text().splitlines()[-1]
        return f" ({', '.join(status)}, {group}, in {waits or 'its own code'})"
    return ""


def clear(host: Host) -> None:
    """End and remove all that does not belong there."""
    assert host._before is not None
    for path in _ours(host):
        with suppress(OSError):
            (path / "cgroup.kill").write_text("1")
        with suppress(OSError):
            (path / "cgroup.freeze").write_text("0")
    host.clean(host._before)
    for path in _ours(host):
        with suppress(OSError):
            path.rmdir()
