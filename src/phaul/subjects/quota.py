"""How much of the processors a group may use, as `cpu.max` says it.

Used on the source, in the pre-copy of a process that is slowed down.  Pure.  From the kernel's
admin-guide/cgroup-v2: "QUOTA PERIOD", both in microseconds, "max" for no limit.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

__all__ = ["UNLIMITED", "Quota", "parse", "quota_for", "tighter"]

UNLIMITED: Final = "max 100000"
"""What a group has that nobody has limited."""

_PERIOD_US: Final = 20_000
"""Short: what has used up its quota answers nobody, CRIU's freeze neither, until the next one."""
_LEAST_US: Final = 1_000
_LONGEST_US: Final = 1_000_000
"""The kernel takes no less, and no longer period."""
_MOST_CPUS: Final = 8192.0
_TEXT: Final = re.compile(r"(max|[0-9]{1,18}) ([0-9]{1,9})")


@dataclass(frozen=True)
class Quota:
    """`quota_us` of CPU time in each `period_us`."""

    quota_us: int
    period_us: int

    @property
    def cpus(self) -> float:
        """How many processors it may keep busy."""
        return self.quota_us / self.period_us

    def __str__(self) -> str:
        return f"{self.quota_us} {self.period_us}"


def quota_for(cpus: float) -> Quota:
    """The quota of so many processors; what the kernel does not take becomes the nearest."""
    cpus = min(max(cpus, _LEAST_US / _LONGEST_US), _MOST_CPUS)
    period = _PERIOD_US
    if cpus * period < _LEAST_US:
        period = min(math.ceil(_LEAST_US / cpus), _LONGEST_US)
    return Quota(max(round(cpus * period), _LEAST_US), period)


def parse(text: str) -> Quota | None:
    """What `cpu.max` says, None for no limit; raises ValueError for what it never says."""
    found = _TEXT.fullmatch(text.strip())
    if found is None or int(found[2]) == 0:
        raise ValueError(f"{text!r} is no limit of CPU time")
    return None if found[1] == "max" else Quota(int(found[1]), int(found[2]))


def tighter(ours: Quota, text: str) -> str:
    """What `cpu.max` is to say where it said `text`: ours, but nothing is ever raised."""
    theirs = parse(text)
    return text if theirs is not None and theirs.cpus <= ours.cpus else str(ours)
