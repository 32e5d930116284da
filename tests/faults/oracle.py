"""Judges a case: from what was seen of it, whether all that phaul promises was kept.  Pure.

one owner       two copies never ran, and at the end exactly one does, whole
the truth       the exit status, `list` and `status` said where it was
nothing left    no process, file, mount, socket, table, cgroup of it
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["Seen", "judge"]

_THERE: Final = (0, 1)
_HERE: Final = (2, 3, 4, 5, 6, 7, 130, 143)
_UNKNOWN: Final = 8


@dataclass
class Seen:
    """What was seen.

    `status` is how phaul ended, `killed` whether the fault, or a person, ended it.  `first` is
    where the process ran when phaul had ended, `settlements` are the statuses of
    `phaul resolve`, `said` what the last one said, `last` is where it ran in the end.  `may_lose`
    where the process may be lost, if that is said.
    """

    status: int | None = None
    killed: bool = False
    may_lose: bool = False
    first: set[str] = field(default_factory=set)
    settlements: list[int] = field(default_factory=list)
    last: set[str] = field(default_factory=set)
    wrong: str = ""
    whole: list[str] = field(default_factory=list)
    entry: str = ""
    fate: str = ""
    said: str = ""
    left: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)

    @property
    def unsure(self) -> bool:
        """Whether phaul left something to settle, or could not say."""
        undecided = self.status == _UNKNOWN or self.entry == "unknown" or "resolve" in self.fate
        return self.killed or undecided or self.first not in ({"host1"}, {"host2"})


def judge(seen: Seen) -> list[str]:
    """What was not kept, a line each; empty if all was."""
    found = list(seen.crashed)
    if seen.wrong:
        found.append(seen.wrong)
    if len(seen.first) > 1 or len(seen.last) > 1:
        found.append("two copies run")
    found += _truth(seen)
    if not seen.last and not (seen.may_lose and _says_lost(seen)):
        found.append("nothing runs in the end")
    found += seen.whole
    found += _entry(seen)
    return found + [f"left over: {line}" for line in _short(seen.left)]


def _says_lost(seen: Seen) -> bool:
    """Whether phaul says that it is lost, in whatever a person looks at."""
    known = seen.settlements[-1] if seen.settlements else seen.status
    return known == _UNKNOWN and seen.entry == "unknown" and seen.fate.startswith("lost")


def _short(lines: list[str]) -> list[str]:
    """Of files in one directory, only how many they are."""
    folders: dict[str, int] = {}
    for line in lines:
        words = line.split()
        if words[0] == "file":
            folder = words[1].rpartition("/")[0]
            folders[f"{folder} on {words[-1]}"] = folders.get(f"{folder} on {words[-1]}", 0) + 1
    rest = [line for line in lines if not line.startswith("file ")]
    return [*rest, *(f"{count} files in {folder}" for folder, count in folders.items())]


def _truth(seen: Seen) -> list[str]:
    """The exit status against where the process was."""
    if seen.killed:
        return []
    if seen.status is None:
        return ["phaul did not end"]
    where = ", ".join(sorted(seen.first)) or "nowhere"
    if seen.status in _THERE and seen.first != {"host2"}:
        return [f"phaul ended with {seen.status}, but it runs {where}"]
    if seen.status in _HERE and seen.first != {"host1"}:
        return [f"phaul ended with {seen.status}, but it runs {where}"]
    if seen.status not in (*_THERE, *_HERE, _UNKNOWN):
        return [f"phaul ended with {seen.status}"]
    return []


def _entry(seen: Seen) -> list[str]:
    """What `list` and `status` say in the end."""
    if not seen.entry:
        return []
    said = f"`status` says {seen.entry} ({seen.fate!r})"
    if seen.entry == "done" and seen.last != {"host2"}:
        return [f"{said}, but it runs {', '.join(seen.last) or 'nowhere'}"]
    over = seen.entry in ("failed", "cancelled")
    if over and seen.last == {"host2"} and "host2" not in seen.fate:
        return [f"{said}, but it runs on host2"]
    if seen.entry == "unknown" and seen.settlements and seen.last:
        return [f"{said} after it was settled"]
    if seen.entry not in ("done", "failed", "cancelled", "unknown"):
        return [f"{said} at the end"]
    return []
