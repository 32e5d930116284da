"""How facts are said, and how findings are gathered.

Used in preflight, on the source.  Pure.  Names in /proc may be any bytes: what is shown has no
control characters.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from phaul.protocol.preflight import Finding, Level, Where

__all__ = ["Held", "Verdict", "count", "held", "shown", "size"]

_MOST_EACH: Final = 20
"""Findings of one check; what is beyond is counted."""
_MOST_TEXT: Final = 1000


class Held(Protocol):
    """What a process has under a descriptor."""

    @property
    def pid(self) -> int:
        """The process."""

    @property
    def fd(self) -> int | None:
        """The descriptor."""


def shown(text: str) -> str:
    """Text that is safe to show and to send, and not too long."""
    whole = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole[:_MOST_TEXT]
    )
    return safe if len(whole) <= _MOST_TEXT else safe + "..."


def held(thing: Held) -> str:
    """Who has it: "PID 7, fd 3"."""
    return f"PID {thing.pid}" if thing.fd is None else f"PID {thing.pid}, fd {thing.fd}"


def size(number: int) -> str:
    """Bytes, in the unit that fits."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"


def count(number: int, one: str, many: str = "") -> str:
    """A number of things: "1 file", "2 files"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


class Verdict:
    """The findings of one check.  With nothing wrong, `close` says that it is right."""

    def __init__(self, check: str) -> None:
        self._check = check
        self._found: dict[Level, dict[str, str]] = {Level.NO: {}, Level.WARNING: {}}

    def no(self, what: str, remedy: str) -> None:
        """A thing that makes the migration fail."""
        self._found[Level.NO].setdefault(what, remedy)

    def warn(self, what: str, remedy: str = "") -> None:
        """A thing that the user should know."""
        self._found[Level.WARNING].setdefault(what, remedy)

    def close(self, fine: str) -> Sequence[Finding]:
        """All findings, the worst first; `fine` is what is said if there are none."""
        made = [
            finding for level, things in self._found.items() for finding in self._few(level, things)
        ]
        return made or [self._make(Level.OK, fine, "")]

    def _few(self, level: Level, things: dict[str, str]) -> Sequence[Finding]:
        shown_ones = list(things.items())[:_MOST_EACH]
        made = [self._make(level, what, remedy) for what, remedy in shown_ones]
        if (more := len(things) - len(made)) > 0:
            made.append(self._make(level, f"and {more} more of the kind", "the same for each"))
        return made

    def _make(self, level: Level, what: str, remedy: str) -> Finding:
        return Finding(check=self._check, level=level, where=Where.SOURCE, what=what, remedy=remedy)
