"""How text may look where it goes: its width, colours, and the characters that can be shown.

Used by all of the command's output, on the host where it was typed.
"""

import os
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TextIO

from phaul.report.units import clean

__all__ = ["PLAIN", "Look", "Row", "cells", "fold", "labelled", "padded"]

_CODES: Final = {"good": "32", "warning": "33", "bad": "1;31", "dim": "2", "bold": "1", "bar": "36"}
_NARROWEST: Final = 20
_LABEL: Final = 10
Row = tuple[str, str, str]
"""A label, its text, and the label's style ("" for none)."""


@dataclass(frozen=True)
class Look:
    """`width` in cells, 0 where lines may be as long as they are: in a pipe nothing is folded."""

    width: int = 0
    colour: bool = False
    fancy: bool = False

    @classmethod
    def of(
        cls,
        stream: TextIO,
        *,
        terminal: bool | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> "Look":
        """The look for `stream`: colours only on a terminal, and unless NO_COLOR is set."""
        if not (is_terminal(stream) if terminal is None else terminal):
            return PLAIN
        dumb = environ.get("TERM") == "dumb"
        return cls(
            width=_width(stream, environ),
            colour=not dumb and not environ.get("NO_COLOR"),
            fancy=not dumb and _can_show(stream, "\u2501\u2578\u2500\u00b7"),
        )

    def paint(self, text: str, style: str) -> str:
        """`text` in `style`, where there are colours."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.colour and style and text else text


PLAIN: Final = Look()
"""For a pipe or a file."""


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is an open terminal."""
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _can_show(stream: TextIO, characters: str) -> bool:
    try:
        characters.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def cells(text: str) -> int:
    """The width of `text` on a terminal: wide characters take two cells, accents none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def padded(text: str, width: int, style: str = "", look: Look = PLAIN) -> str:
    """`text`, painted, and filled with spaces to `width` cells."""
    return look.paint(text, style) + " " * (width - cells(text))


def fold(text: str, width: int) -> list[str]:
    """`text` in lines of `width` cells at most, but for words that are longer: a path stays whole.

    0 or less folds nothing.
    """
    text = clean(text)
    if width <= 0:
        return [text]
    return textwrap.wrap(
        text, max(width, _NARROWEST), break_long_words=False, break_on_hyphens=False
    ) or [""]


def labelled(rows: Iterable[Row], look: Look) -> str:
    """Rows of a label and its text, which is folded beside it; rows without text are left out.

    The texts begin where a round's does in the progress: in the tenth cell, if the labels fit.
    """
    kept = [(clean(label), text, style) for label, text, style in rows if text]
    column = max((cells(label) for label, _, _ in kept), default=0) + 2
    column = max(column, _LABEL)
    lines = []
    for label, text, style in kept:
        first, *rest = fold(text, look.width - column if look.width else 0)
        lines.append((padded(label, column, style, look) + first).rstrip())
        lines += [" " * column + line for line in rest]
    return "\n".join(lines)
