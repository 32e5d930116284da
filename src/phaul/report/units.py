"""Sizes, rates, times and foreign text as a person reads them.

Used for all output, on both hosts, during and after a migration.  Pure.
"""

import math
from typing import Final

__all__ = ["UNKNOWN", "clean", "duration", "plural", "rate", "size", "slowed"]

UNKNOWN: Final = "unknown"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float | None) -> str:
    """`count` bytes in three digits or so: `512 B`, `42.1 MiB`, `118 MiB`, `1.25 GiB`."""
    if count is None or not math.isfinite(count):
        return UNKNOWN
    value, unit = max(float(count), 0.0), 0
    # 999.5 would be shown as 1000: the next unit has one digit less.
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0 or value >= 99.95:
        return f"{value:.0f} {_UNITS[unit]}"
    digits = 2 if unit >= 3 and value < 9.995 else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def rate(per_second: float | None) -> str:
    """Bytes a second: `118 MiB/s`."""
    text = size(per_second)
    return text if text == UNKNOWN else f"{text}/s"


def duration(seconds: float | None) -> str:
    """`0.4 ms`, `360 ms`, `3.56 s`, `18.9 s`, `2 min 05 s`, `1 h 05 min`, `3 d 04 h`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        ms = seconds * 1e3
        return f"{ms:.1f} ms" if 0 < ms < 9.95 else f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def slowed(share: float) -> str:
    """`slowed to 40 %`."""
    return f"slowed to {share * 100:.0f} %"


def plural(count: int, one: str, more: str = "") -> str:
    """`1 round`, `3 rounds`."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def clean(text: str) -> str:
    """`text` on one line, with a `?` for each character that could steer a terminal.

    Names of processes, paths and what the other host says come from outside.
    """
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text)
