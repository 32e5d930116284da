"""A man page out of plain text: what man(7) needs to be told, and no more."""

import re
from collections.abc import Iterable

__all__ = ["Page", "escape"]


# Each of these, as it is, is a request, or another glyph in print.
_GLYPHS = str.maketrans(
    {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", '"': "\\(dq", "~": "\\(ti", "^": "\\(ha"}
)


def escape(text: str) -> str:
    """Text that roff prints as it is: with plain hyphens, so that options can be copied."""
    return text.translate(_GLYPHS)


def _inline(text: str) -> str:
    """One paragraph; what stands in backquotes becomes bold."""
    parts = re.split(r"`([^`]+)`", " ".join(text.split()))
    printed = "".join(
        f"\\fB{escape(part)}\\fR" if place % 2 else escape(part) for place, part in enumerate(parts)
    )
    # A line that begins with a dot is a request.
    return f"\\&{printed}" if printed.startswith(".") else printed


class Page:
    """A page that is written from its top to its end; `text` is its source."""

    def __init__(self, name: str, section: int, version: str, manual: str) -> None:
        title = f'.TH {escape(name.upper())} {section} "" "{escape(version)}" "{escape(manual)}"'
        # No hyphenation, and a ragged margin: words of a command are searched for.
        self._lines = [title, ".nh", ".ad l"]

    @property
    def text(self) -> str:
        """The page in roff."""
        return "\n".join(self._lines) + "\n"

    def section(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {escape(title.upper())}")

    def subsection(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f".SS {escape(title)}")

    def paragraph(self, text: str) -> None:
        """A paragraph, filled."""
        self._lines += [".PP", _inline(text)]

    def line(self, text: str) -> None:
        """Text right after a heading."""
        self._lines.append(_inline(text))

    def verbatim(self, text: str) -> None:
        """Lines that stay as they are, indented."""
        lines = (f"\\&{escape(line)}" for line in text.splitlines())
        self._lines += [".PP", ".RS 4", ".nf", *lines, ".fi", ".RE"]

    def items(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Terms, in bold, each with what it means."""
        for term, meaning in pairs:
            self._lines += [".TP", f"\\fB{escape(term)}\\fR", _inline(meaning)]
