"""An error as a person reads it: what failed, CRIU's own line, what to do, where the process is.

Used at a command's end, on the host where it was typed.  Pure.
"""

from typing import Final

import msgspec

from phaul.cli.render.look import PLAIN, Look, Row, labelled
from phaul.cli.render.outcome import not_moved
from phaul.errors import PhaulError

__all__ = ["error_json", "error_text"]

_ORDER: Final = ("error", "", "criu", "log", "also", "do", "process")
_STYLES: Final = {"error": "bad", "do": "good", "process": "bold"}


def error_text(error: PhaulError, look: Look = PLAIN) -> str:
    """`error` in labelled lines, the last of which says where the process is."""
    found = _Parts()
    found.add(error, "")
    rows: list[Row] = [
        (label, text, _STYLES.get(label, "dim"))
        for label in _ORDER
        for text in found.parts.get(label, ())
    ]
    return labelled(rows, look)


def error_json(error: PhaulError, *, id: str = "") -> str:  # noqa: A002 -- the field's name
    """`error` as the one object that `--json` prints."""
    return msgspec.json.encode(not_moved(error, id=id)).decode()


class _Parts:
    """The parts of an error and of what caused it, each said once."""

    def __init__(self) -> None:
        self.parts: dict[str, list[str]] = {}

    def add(self, error: PhaulError, wrapped: str) -> None:
        """Add `error`; `wrapped` is what the error around it said before it."""
        cause = error.__cause__ if isinstance(error.__cause__, PhaulError) else None
        if cause and str(cause) in error.what:
            # Its text is in there whole: take it apart, so that each line has its label.
            self.add(cause, wrapped + _headed(error).replace(str(cause), ""))
        else:
            first, *more = _headed(error).splitlines() or [""]
            self._put("error", wrapped + first)
            for line in more:
                self._sort(line, error)
        for line in error.details():
            self._sort(line, error)
        self._put("do", error.remedy)
        for note in getattr(error, "__notes__", ()):
            for line in note.splitlines():
                self._put("also", line)
        self._put("process", error.fate)

    def _sort(self, line: str, error: PhaulError) -> None:
        # What came over the network is one text, laid out as `str` of an error lays it out.
        for label in ("criu", "log"):
            if line.startswith(f"{label}: "):
                self._put(label, line.removeprefix(f"{label}: "))
                return
        if line == error.fate or line.startswith("still running here"):
            self._put("process", line)
        else:
            self._put("", line)

    def _put(self, label: str, text: str) -> None:
        text = text.strip()
        said = self.parts.setdefault(label, [])
        if text and not any(text in others for others in self.parts.values()):
            said.append(text)


def _headed(error: PhaulError) -> str:
    return f"{error.host}: {error.what}" if error.host else error.what
