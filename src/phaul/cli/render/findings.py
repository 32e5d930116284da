"""What preflight found: for `phaul check`, and before a migration.

Used on the host where the command was typed.  Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from phaul.cli.render.look import PLAIN, Look, cells, fold, padded
from phaul.cli.render.outcome import Checks
from phaul.protocol.preflight import Finding, Level, Where
from phaul.report.findings import in_order
from phaul.report.units import clean, plural

__all__ = ["checks_json", "findings_text", "problems_text", "summary"]

_STYLES: Final = {Level.OK: "good", Level.WARNING: "warning", Level.NO: "bad"}
_LEVEL: Final = 7
"""The width of the longest level's name."""
_WIDE: Final = 110
"""From here on two columns can be read."""
_GAP: Final = "   "


def findings_text(
    findings: Iterable[Finding], look: Look = PLAIN, *, source: str, destination: str = ""
) -> str:
    """A line each, a remedy under it, and a last line that says what they come to.

    With a `destination`, and room for it, the two hosts stand beside each other.
    """
    ordered = in_order(findings)
    if destination and look.width >= _WIDE:
        lines = _beside(ordered, look, source, destination)
    else:
        hosts = {Where.SOURCE: source, Where.DESTINATION: destination} if destination else None
        lines = _below(ordered, look, hosts)
    return "\n".join([*lines, summary(ordered, look)])


def problems_text(
    findings: Iterable[Finding],
    look: Look = PLAIN,
    *,
    source: str = "source",
    destination: str = "destination",
    everything: bool = False,
) -> str:
    """The warnings and the nos in full, all that is ok in one line; with `everything`, all."""
    ordered = in_order(findings)
    shown = [f for f in ordered if everything or f.level is not Level.OK]
    hosts = {Where.SOURCE: source, Where.DESTINATION: destination}
    return "\n".join([*_below(shown, look, hosts), summary(ordered, look)])


def summary(findings: Sequence[Finding], look: Look = PLAIN) -> str:
    """`checks   24 ok, 2 warnings`, and whether it is refused."""
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    said = [look.paint(f"{counts[Level.OK]} ok", "good")]
    if counts[Level.WARNING]:
        said.append(look.paint(plural(counts[Level.WARNING], "warning"), "warning"))
    if counts[Level.NO]:
        said.append(look.paint(f"{counts[Level.NO]} no: refused", "bad"))
    return padded("checks", _LEVEL + len(_GAP), "bold", look) + ", ".join(said)


def checks_json(checks: Checks) -> str:
    """The one object that `phaul check --json` prints."""
    return msgspec.json.encode(checks).decode()


def _below(findings: Sequence[Finding], look: Look, hosts: dict[Where, str] | None) -> list[str]:
    column = max((cells(f.check) for f in findings), default=0)
    host_column = max((cells(clean(hosts[f.where])) for f in findings), default=0) if hosts else 0
    lines = []
    for found in findings:
        head = _level(found, look) + _GAP + padded(found.check, column) + _GAP
        indent = _LEVEL + column + 2 * len(_GAP)
        if hosts:
            head += padded(clean(hosts[found.where]), host_column, "dim", look) + _GAP
            indent += host_column + len(_GAP)
        width = look.width - indent if look.width else 0
        for place, line in enumerate(_said(found, width, look)):
            lines.append((" " * indent if place else head) + line)
    return lines


def _beside(findings: Sequence[Finding], look: Look, source: str, destination: str) -> list[str]:
    column = max((cells(f.check) for f in findings), default=0)
    room = (look.width - column - 2 * len(_GAP)) // 2
    titles = padded(f"here: {clean(source)}", room, "bold", look)
    titles += _GAP + look.paint(f"there: {clean(destination)}", "bold")
    lines = [" " * column + _GAP + titles]
    for check in dict.fromkeys(f.check for f in findings):
        sides = [
            [
                line
                for f in findings
                if f.check == check and f.where is where
                for line in _half(f, room, look)
            ]
            for where in Where
        ]
        for row in range(max(map(len, sides))):
            left, right = (side[row] if row < len(side) else ("", "") for side in sides)
            label = padded(check if row == 0 else "", column, "bold", look)
            filled = left[1] + " " * (room - cells(left[0]))
            lines.append((label + _GAP + filled + _GAP + right[1]).rstrip())
    return lines


def _half(found: Finding, room: int, look: Look) -> list[tuple[str, str]]:
    """A finding's lines in `room` cells, each plain (for its width) and painted."""
    width = room - _LEVEL - 1
    both = zip(_said(found, width, PLAIN), _said(found, width, look), strict=True)
    lines = []
    for place, (plain, painted) in enumerate(both):
        head = _level(found, PLAIN) if place == 0 else " " * _LEVEL
        shown = _level(found, look) if place == 0 else head
        lines.append((f"{head} {plain}", f"{shown} {painted}"))
    return lines


def _level(found: Finding, look: Look) -> str:
    return padded(found.level.value, _LEVEL, _STYLES[found.level], look)


def _said(found: Finding, width: int, look: Look) -> list[str]:
    remedy = fold(f"> {found.remedy}", width) if found.remedy else []
    return fold(found.what, width) + [look.paint(line, "bar") for line in remedy]
