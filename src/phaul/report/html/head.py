"""The head of a page that needs nothing else.  Pure."""

from typing import Final

from phaul.report.html.markup import Markup, el
from phaul.report.html.style import CSS

__all__ = ["page_head"]

# Nothing is loaded and nothing runs, whatever the page came to contain.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page_head(title: str, css: str = "") -> Markup:
    """The head, with `css` after the style that all pages have."""
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", title),
        el("style", Markup(CSS + css)),
    )
