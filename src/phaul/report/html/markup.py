"""Elements of HTML and SVG, in which each text is escaped that is no element itself.  Pure."""

import html
from typing import Final

__all__ = ["Markup", "el", "join", "text_of"]

_VOID: Final = frozenset({"meta", "link", "br"})
Value = str | int | float | None


class Markup(str):
    """Text that is markup already; only `el` and `join` make it."""

    __slots__ = ()


def el(tag: str, *children: "str | None", **attributes: Value) -> Markup:
    """An element.  Children that are no Markup are escaped, None is left out, as with attributes.

    `class_` is the attribute class; any other `_` in a name is a `-`.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: str | None) -> Markup:
    """The children one after another, escaped where they are no Markup."""
    return Markup(
        "".join(c if isinstance(c, Markup) else text_of(c) for c in children if c is not None)
    )


def text_of(text: str) -> str:
    """`text` for HTML: escaped, and without characters that could not be seen or written."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def _value(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return text_of(str(value))
