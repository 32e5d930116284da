"""A terminal with one live line at the bottom, by rich.

Used on the source while a migration runs.  Imported late, and only on a terminal: it takes a tenth
of a second.
"""

from typing import NoReturn, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

__all__ = ["Screen"]


class _Console(Console):
    """A console that leaves the rest of the process alone."""

    def on_broken_pipe(self) -> NoReturn:
        """Only say so: rich's own puts /dev/null in the place of stdout, and exits."""
        raise BrokenPipeError


class Screen:
    """Lines that stay, and under them one that changes; OSError and ValueError may be raised.

    `stop` has to be called, or the cursor stays hidden.
    """

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._console = _Console(
            file=stream,
            force_terminal=True,
            force_interactive=True,
            no_color=not colour,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def line(self, line: str) -> None:
        """Write a line above the live one, with its colours as ANSI codes.

        It is not folded: a path that is longer than the line stays in one piece.
        """
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def live(self, line: str) -> None:
        """Show this as the live line, cut to the width."""
        text = Text.from_ansi(line)
        text.no_wrap, text.overflow = True, "ellipsis"
        self._live.update(text, refresh=True)

    def stop(self) -> None:
        """Take the live line away, and show the cursor."""
        self._live.stop()
