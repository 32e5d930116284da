"""The mounts that a process sees.

Used in preflight, on the source.  From /proc/PID/mountinfo, proc_pid_mountinfo(5).
"""

import re
from dataclasses import dataclass
from typing import Final

from phaul.subjects.proc import Proc

__all__ = ["Mount", "parse_mountinfo", "read_mounts"]

_LINE: Final = re.compile(
    r"([0-9]{1,10}) [0-9]{1,10} ([0-9]{1,10}):([0-9]{1,10}) (\S+) (\S+) .*? - (\S+) "
)
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mount: its ID, its device as (major, minor), its root in the file system, its place."""

    id: int
    device: tuple[int, int]
    root: str
    point: str
    type: str


def parse_mountinfo(text: str) -> list[Mount]:
    """Read mountinfo; lines that are not understood are passed over."""
    return [
        Mount(
            int(found[1]),
            (int(found[2]), int(found[3])),
            _unescape(found[4]),
            _unescape(found[5]),
            found[6],
        )
        for line in text.split("\n")
        if (found := _LINE.match(line))
    ]


def _unescape(text: str) -> str:
    """Blank, tab, line end and backslash are written in octal."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8) & 0xFF), text)


def read_mounts(pid: int | str, proc: Proc) -> list[Mount]:
    """The mounts that a process sees; none if it is gone."""
    return parse_mountinfo(proc.text(pid, "mountinfo") or "")
