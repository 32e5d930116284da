"""What one check found, and the words for it.

Used in preflight, on the destination.  Pure.  What is said comes partly from the other side and
partly from files of this host: it is made printable, and short enough that 1024 needs that all fail
still make one message.
"""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from phaul.protocol.preflight import Finding, Level, Where

__all__ = ["Sheet", "count", "merged", "octets", "printable"]

_MOST_WHAT: Final = 400
_MOST_REMEDY: Final = 300
_MOST_PATH: Final = 240
MOST_OF_A_CHECK: Final = 16
"""Findings that are told one by one; 15 checks with so many stay below 220 KiB."""

_ORDER: Final = (Level.NO, Level.WARNING, Level.OK)


def printable(text: str, most: int = _MOST_PATH) -> str:
    """The text without what could play with a terminal, at most `most` bytes of JSON."""
    # Of a foreign text of any length, no more than may be shown is looked at.
    text = text if len(text) <= most else f"{text[:most]}...{text[-most:]}"
    text = "".join(c if c.isprintable() else "?" for c in text)
    if _size(text) <= most:
        return text
    keep = most // 2
    # The end of a path tells more than its middle.
    while _size(short := f"{text[:keep]}...{text[-keep:]}") > most:
        keep -= 1 + keep // 8
    return short


def _size(text: str) -> int:
    return len(msgspec.json.encode(text))


def count(number: int, noun: str) -> str:
    """The number with its noun: "1 file", "37 files"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {_plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"


def octets(number: int) -> str:
    """A number of bytes for people."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


@dataclass
class Sheet:
    """The findings of one check; `right` counts what is as it should be."""

    check: str
    right: int = 0
    found: list[Finding] = field(default_factory=list)

    def no(self, what: str, remedy: str = "") -> None:
        """Note what makes the restore fail."""
        self._add(Level.NO, what, remedy)

    def warn(self, what: str, remedy: str = "") -> None:
        """Note what the user should know."""
        self._add(Level.WARNING, what, remedy)

    def ok(self, what: str) -> None:
        """Note what is right; it is told only if nothing else of the check is wrong."""
        self._add(Level.OK, what, "")

    def _add(self, level: Level, what: str, remedy: str) -> None:
        self.found.append(
            Finding(
                check=self.check,
                level=level,
                where=Where.DESTINATION,
                what=printable(what, _MOST_WHAT),
                remedy=printable(remedy, _MOST_REMEDY),
            )
        )


def merged(findings: list[Finding], order: tuple[str, ...]) -> tuple[Finding, ...]:
    """The findings by check, the checks in `order`, the worst first.

    A check of which anything is wrong has no ok; else it has one.  Of very many, the rest is
    counted.
    """
    by_check: dict[str, list[Finding]] = {check: [] for check in order}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    return tuple(one for check, some in by_check.items() for one in _of_check(check, some))


def _of_check(check: str, findings: list[Finding]) -> list[Finding]:
    wrong = [finding for finding in findings if finding.level is not Level.OK]
    if not wrong:
        sheet = Sheet(check)
        if findings:
            sheet.ok("; ".join(dict.fromkeys(finding.what for finding in findings[:4])))
        return sheet.found
    wrong.sort(key=lambda finding: _ORDER.index(finding.level))
    rest = wrong[MOST_OF_A_CHECK:]
    if rest:
        sheet = Sheet(check)
        tell = sheet.no if rest[0].level is Level.NO else sheet.warn
        tell(f"and {len(rest)} more of this check", "mend these first, and look again")
        return [*wrong[:MOST_OF_A_CHECK], *sheet.found]
    return wrong
