"""Values as people write them: `300ms`, `100M`, `1Gbit`, `4242`; for options and configuration.

Used before anything is done, on the source.  Pure.  A number without its unit is refused, since
`300` may be milliseconds to one and seconds to another.
"""

import re
from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import click

__all__ = ["DURATION", "PID", "RATE", "SIZE", "OneOf", "parse_duration", "parse_rate", "parse_size"]

_UNITS: Final = {
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1_000),
    "s": Fraction(1),
    "m": Fraction(60),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}
_LONGEST_S: Final = 366 * 86_400

_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_PART: Final = re.compile(rf"({_NUMBER})\s*(us|ms|s|min|m|h|d)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_NUMBER}\s*(?:us|ms|s|min|m|h|d)\s*)+", re.ASCII)

# As rsync and dd have it, a letter alone counts in powers of 1024; networks count bits in 1000.
_SIZE: Final = re.compile(
    rf"({_NUMBER})\s*(?:(?=[A-Za-z])(?!iB)([kKmMgGtT]?)(i?B)?|([kKmMgGtT]?)bit)", re.ASCII
)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_PID_MOST: Final = 1 << 22
_LARGEST: Final = 1 << 60


def parse_duration(text: str) -> float:
    """The seconds in a text such as `300ms`, `1.5s`, `10m` or `1h30m`; raises ValueError.

    Units: us, ms, s, m or min, h, d; the larger before the smaller.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text} has no unit: write {text}ms, {text}s or {text}m")
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!a} is no duration: write 300ms, 1.5s, 10m or 1h30m")
    total, last = Fraction(0), Fraction(_LONGEST_S)
    for number, unit in _PART.findall(text):
        if _UNITS[unit] >= last:
            raise ValueError(f"{text!a} is no duration: the larger unit comes first, and once")
        last = _UNITS[unit]
        total += Fraction(number) * last
    if not 0 < total <= _LONGEST_S:
        raise ValueError(f"{text} is out of range: more than 0, and at most 366d")
    return float(total)


def parse_size(text: str) -> int:
    """The bytes in a text such as `4096B`, `100M`, `1.5GiB` or `10GB`; raises ValueError.

    K, M, G and T are powers of 1024, with or without iB; KB, MB, GB and TB are powers of 1000.
    """
    match = _match(text.strip())
    if match is None or match[4] is not None:
        raise ValueError(f"{text!a} is no size: write 4096B, 100M, 1.5GiB or 10GB")
    return _whole(text, _bytes(match))


def parse_rate(text: str) -> float:
    """The bytes a second in a text such as `100M`, `1G` or `100Mbit`; raises ValueError.

    As a size, or in bits with powers of 1000 (`kbit`, `Mbit`, `Gbit`); `/s` at its end is allowed.
    """
    plain = text.strip()
    match = _match(plain.removesuffix("/s"))
    if match is None:
        raise ValueError(f"{text!a} is no rate: write 100M, 1GiB or 100Mbit (a second)")
    if match[4] is None:
        return float(_whole(text, _bytes(match)))
    return float(_whole(text, Fraction(match[1]) * 1000 ** _POWER[match[4].lower()] / 8))


def _match(text: str) -> re.Match[str] | None:
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text} has no unit: write {text}K, {text}M, or {text}B for bytes")
    return _SIZE.fullmatch(text)


def _bytes(match: re.Match[str]) -> Fraction:
    base = 1000 if match[3] == "B" else 1024
    scale: int = base ** _POWER[match[2].lower()]
    return Fraction(match[1]) * scale


def _whole(text: str, count: Fraction) -> int:
    if not 1 <= count <= _LARGEST:
        raise ValueError(f"{text} is out of range: at least one byte, and at most 1048576T")
    return int(count)


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
    _Choice = click.Choice[str]
else:
    # Older versions of click cannot be subscripted.
    _ParamType = click.ParamType
    _Choice = click.Choice


class _Value(_ParamType):
    """The type of an option whose text `parse` reads; a default may be the value itself."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The value; a text that is none is a usage error."""
        if isinstance(value, int | float):
            return value
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OneOf(_Choice):
    """The type of an option that takes a member of an Enum by its value, as the file does.

    click's own goes by the members' names, and only in its newer versions.
    """

    def __init__(self, kind: type[Enum]) -> None:
        super().__init__([str(member.value) for member in kind])
        self._kind = kind

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 -- click's own says str
        """The member; a text that is none is a usage error."""
        if isinstance(value, self._kind):
            return value
        return self._kind(super().convert(value, param, ctx))


def _parse_pid(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) or not 1 <= int(text) <= _PID_MOST:
        raise ValueError(f"{text!a} is no PID: it is a number from 1 to {_PID_MOST}")
    return int(text)


DURATION: Final = _Value("duration", parse_duration)
"""An option's type: seconds, as a float."""
SIZE: Final = _Value("size", parse_size)
"""An option's type: bytes, as an int."""
RATE: Final = _Value("rate", parse_rate)
"""An option's type: bytes a second, as a float."""
PID: Final = _Value("pid", _parse_pid)
"""An argument's type: a PID, as an int."""
