"""What `--json` prints: one versioned object that says where the process is.

Used at a command's end.  Described by `docs/schema/result.json` and `docs/schema/check.json`.
"""

from typing import Literal

import msgspec

from phaul.errors import CriuError, OutcomeUnknown, PhaulError
from phaul.plan import Plan
from phaul.protocol.preflight import Finding
from phaul.report import Report

__all__ = ["Checks", "Moved", "NotMoved", "Outcome", "Process", "not_moved"]

Process = Literal["source", "destination", "unknown"]
"""Where the process is now."""


class _Outcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="outcome"):
    """The base of a migration's outcomes."""

    v: int = 1


class Moved(_Outcome, frozen=True, kw_only=True, tag="moved"):
    """It runs on the destination; `exit_code` is 1 if the report has warnings."""

    exit_code: int
    process: Process = "destination"
    report: Report


class NotMoved(_Outcome, frozen=True, kw_only=True, tag="not-moved"):
    """It failed, or was cancelled: the error's class and fields.

    `criu_line` is the line of CRIU's log that decided, `log` the path of all of it; "" for none.
    """

    exit_code: int
    process: Process
    id: str = ""
    kind: str
    what: str
    host: str = ""
    remedy: str = ""
    fate: str = ""
    criu_line: str = ""
    log: str = ""
    notes: tuple[str, ...] = ()


Outcome = Moved | NotMoved
"""Any outcome of a migration."""


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """What `phaul check --json` and a dry run print."""

    v: int = 1
    exit_code: int
    source: str
    destination: str = ""
    findings: tuple[Finding, ...]
    plan: Plan | None = None


def not_moved(error: PhaulError, *, id: str = "") -> NotMoved:  # noqa: A002 -- the field's name
    """The outcome that `error` was."""
    criu = _criu(error)
    return NotMoved(
        exit_code=error.exit_code,
        # The base alone says nothing of the process: it stands for what nobody foresaw.
        process="unknown"
        if isinstance(error, OutcomeUnknown) or type(error) is PhaulError
        else "source",
        id=id,
        kind=type(error).__name__,
        what=_text(error.what),
        host=_text(error.host),
        remedy=_text(error.remedy),
        fate=_text(error.fate),
        criu_line=_text(criu.line if criu else ""),
        log=_text(criu.log_path if criu else ""),
        notes=tuple(_text(note) for note in getattr(error, "__notes__", ())),
    )


def _criu(error: PhaulError) -> CriuError | None:
    """The error itself, or what caused it, that has a line of CRIU's."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None or isinstance(seen, CriuError):
            return seen
        seen = seen.__cause__
    return None


def _text(text: str) -> str:
    # A path that is no UTF-8 has lone surrogates, and JSON has no place for them.
    return text.encode(errors="replace").decode()
