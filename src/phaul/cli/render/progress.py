"""How a migration is told while it runs: lines, and on a terminal one live line under them.

Used on the source.  `on_event` is called in the migration's own thread, also while the process is
frozen: it only puts the event in a queue, and a thread of its own does the writing.
"""

import time
from typing import TYPE_CHECKING, Final, TextIO

from phaul.cli.render.background import Background
from phaul.cli.render.live import live_line
from phaul.cli.render.look import Look, is_terminal
from phaul.cli.render.narration import Narrator
from phaul.report import Event, RoundProgress
from phaul.report.status import Phase, Status

if TYPE_CHECKING:
    from phaul.cli.render.screen import Screen

__all__ = ["Progress", "make_progress"]

_MOST_WAITING: Final = 256


class Progress:
    """Takes a migration's events; made by `make_progress`.  A context manager."""

    def __init__(self, output: "_Lines | None") -> None:
        self._background: Background[Event | str] | None = None
        if output is not None:
            self._background = Background(
                output.show,
                begin=output.begin,
                idle=output.tick if isinstance(output, _Live) else None,
                end=output.end,
                name="phaul-progress",
            )

    def on_event(self, event: Event) -> None:
        """Tell `event`, soon.  Never waits, never raises."""
        if self._background is None:
            return
        if isinstance(event, RoundProgress) and self._background.backlog > _MOST_WAITING:
            return
        self._background.put(event)

    def line(self, text: str) -> None:
        """Tell a line of somebody else's, a log's say, above the live line.  As `on_event`."""
        if self._background is not None:
            self._background.put(text)

    def close(self) -> None:
        """Write what waits, take the live line away; two seconds at most."""
        if self._background is not None:
            self._background.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_progress(
    stream: TextIO, *, quiet: bool, verbose: int, terminal: bool | None = None
) -> Progress:
    """The way to tell progress on `stream`, which stays the caller's; `quiet` tells nothing.

    `terminal` is whether the stream is one, None to ask it.
    """
    if quiet:
        return Progress(None)
    if is_terminal(stream) if terminal is None else terminal:
        look = Look.of(stream, terminal=True)
        # A dumb terminal cannot go back to the beginning of a line.
        if look.fancy or look.colour:
            return Progress(_Live(stream, verbose))
        return Progress(_Lines(stream, verbose, terminal=True))
    return Progress(_Lines(stream, verbose))


class _Lines:
    """Lines one after another."""

    def __init__(
        self, stream: TextIO, verbose: int, *, terminal: bool = False, live: bool = False
    ) -> None:
        self._stream = stream
        self._terminal = terminal
        self._narrator = Narrator(verbose=verbose, live=live)

    def begin(self) -> None:
        """Before the first event."""

    def show(self, what: Event | str) -> None:
        """Say it."""
        look = Look.of(self._stream, terminal=self._terminal)
        lines = [what] if isinstance(what, str) else self._narrator.lines(what, look)
        for line in lines:
            self.write(_showable(line, self._stream))

    def write(self, line: str) -> None:
        """Write one line."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def end(self) -> None:
        """After the last event."""


class _Live(_Lines):
    """Lines, and under them one that changes.

    While the other host is being reached there is no live line, and the cursor is left alone: ssh
    may be asking for a password on this terminal.
    """

    def __init__(self, stream: TextIO, verbose: int) -> None:
        super().__init__(stream, verbose, terminal=True, live=True)
        self._status = Status()
        self._screen: Screen | None = None

    def begin(self) -> None:
        # Imported here, in the writing thread: nobody waits for it.
        import phaul.cli.render.screen  # noqa: F401

    def show(self, what: Event | str) -> None:
        if not isinstance(what, str):
            self._status = self._status.after(what, time.time())
        reached = self._status.started_unix and self._status.phase is not Phase.CONNECTING
        if self._screen is None and reached and not self._status.phase.ended:
            from phaul.cli.render.screen import Screen

            look = Look.of(self._stream, terminal=True)
            self._screen = Screen(self._stream, colour=look.colour)
        super().show(what)
        self.tick()

    def write(self, line: str) -> None:
        if self._screen is None:
            super().write(line)
        else:
            self._screen.line(line)

    def tick(self) -> None:
        """Bring the live line up to date."""
        if self._screen is not None:
            look = Look.of(self._stream, terminal=True)
            line = live_line(self._status, time.time(), look)
            self._screen.live(_showable(line, self._stream))

    def end(self) -> None:
        if self._screen is not None:
            self._screen.stop()


def _showable(line: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)
