"""What may go wrong in one case, as a value with a text form.  Pure.

    kill victim=piggie who=agent at=ask/restore+
    kill victim=tree who=source at=event/source-gone then cut who=both at=settle/ask/hello+

The second fault is one of the settlement.  A step is `event/NAME` (a report event of the source),
`ask/NAME-`, `ask/NAME+` (a message, before and after it is passed on), `answer/NAME-` (the answer
to it), or `criu/dump/NAME`, `criu/restore/NAME` (before a packet from or to that CRIU goes on).  In
a settlement each has `settle/` before it.
"""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Self

__all__ = ["EVER", "LATE", "FaultPoint", "Kind"]

EVER: Final = "ever"
"""For ever: in the end a person kills what stands still."""
LATE: Final = "late"
"""Until the migration has been settled."""


_WORDS: Final = ("victim", "way", "who", "at", "channel", "flow", "byte", "time", "number")
_THEN: Final = " then "


class Kind(Enum):
    """What happens."""

    NONE = "none"
    """Nothing: it shows which steps there are."""
    KILL = "kill"
    STOP = "stop"
    CUT = "cut"
    STALL = "stall"
    CORRUPT = "corrupt"
    LINK = "link"
    """Both channels are lost, and no new connection can be made for a time."""
    DISK = "disk"
    MEMORY = "memory"
    """CRIU may not have more than so many MiB of address space."""
    FAULT = "fault"
    """CRIU's own --fault."""
    EXIT = "exit"
    """CRIU leaves with a status, by itself as it were."""
    MISSING = "missing"
    TAKEN = "taken"


@dataclass(frozen=True, kw_only=True)
class FaultPoint:
    """One fault.  What is "" or -1 has no meaning for its kind.

    `way` is post-copy, or else stop and copy.  `who` is a process (source, agent, dump,
    restore, keeper), a host for a disk, or who notices a cut (source, agent, both).  `channel` is
    control or memory, `flow` ask or answer, `byte` counts what has passed there.  `time` is in
    seconds, or EVER, or LATE.  `number` is of the kind's own.
    """

    kind: Kind
    victim: str = "piggie"
    way: str = ""
    who: str = ""
    at: str = ""
    channel: str = ""
    flow: str = ""
    byte: int = -1
    time: str = ""
    number: int = -1
    then: "FaultPoint | None" = None

    def __str__(self) -> str:
        words = [self.kind.value]
        for spec in fields(self)[1:-1]:
            value = getattr(self, spec.name)
            if value not in ("", -1):
                words.append(f"{spec.name}={value}")
        text = " ".join(words)
        return f"{text}{_THEN}{self.then}" if self.then is not None else text

    @classmethod
    def parse(cls, text: str) -> Self:
        """The fault of a text; raises ValueError."""
        text, _, then = text.partition(_THEN)
        kind, *words = text.split()
        values: dict[str, Any] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or name not in _WORDS:
                raise ValueError(f"{word!r} is no part of a fault")
            values[name] = int(value) if name in ("byte", "number") else value
        return cls(kind=Kind(kind), then=cls.parse(then) if then else None, **values)

    @property
    def seconds(self) -> float | None:
        """The time as a number; None for EVER and LATE."""
        return float(self.time) if self.time not in ("", EVER, LATE) else None
