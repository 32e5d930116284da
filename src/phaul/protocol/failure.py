"""An error on its way: from the destination, where it was met, to the source, where it is raised.

Used in every phase: `from_error` on the destination, `to_error` on the source.  Pure.  What comes
over the network ends on a person's terminal, so it is cut to length and cleared of control
characters on both ends.
"""

from typing import Final

from phaul import errors
from phaul.errors import CriuError, PhaulError
from phaul.protocol.messages import Failed

__all__ = ["from_error", "to_error"]

_MOST: Final = 4096
_MOST_LOG: Final = 32_768
_MOST_NOTES: Final = 8
_ERRNO_MOST: Final = (1 << 31) - 1

_KINDS: Final[dict[str, type[PhaulError]]] = {
    name: getattr(errors, name) for name in errors.__all__
}


def from_error(error: BaseException, host: str = "") -> Failed:
    """The answer that carries `error`; `host` stands in where the error names none.

    A class that is not phaul's own travels as its nearest base that is.
    """
    notes = tuple(_clean(note) for note in getattr(error, "__notes__", ())[:_MOST_NOTES])
    if not isinstance(error, PhaulError):
        return Failed(
            kind=PhaulError.__name__,
            what=_clean(f"unexpected {type(error).__name__}: {error}"),
            host=_clean(host),
            notes=notes,
        )
    kind = next(base.__name__ for base in type(error).__mro__ if _KINDS.get(base.__name__) is base)
    failed = Failed(
        kind=kind,
        what=_clean(error.what),
        host=_clean(error.host or host),
        remedy=_clean(error.remedy),
        fate=_clean(error.fate),
        notes=notes,
    )
    if isinstance(error, CriuError):
        errno = error.errno if -_ERRNO_MOST <= error.errno <= _ERRNO_MOST else 0
        return Failed(
            kind=kind,
            what=failed.what,
            host=failed.host,
            remedy=failed.remedy,
            fate=failed.fate,
            request=_clean(error.request),
            line=_clean(error.line),
            log_path=_clean(error.log_path),
            errno=errno,
            notes=notes,
            log=_clean(error.log_text, _MOST_LOG),
        )
    return failed


def to_error(failed: Failed, host: str = "destination") -> PhaulError:
    """The error in the answer; of an unknown kind it is a PhaulError.

    `host` stands in where it names none.
    """
    kind = _KINDS.get(failed.kind, PhaulError)
    what, where = _clean(failed.what), _clean(failed.host) or host
    remedy, fate = _clean(failed.remedy), _clean(failed.fate)
    error: PhaulError
    if issubclass(kind, CriuError):
        error = kind(
            what,
            request=_clean(failed.request),
            line=_clean(failed.line),
            log_path=_clean(failed.log_path),
            errno=failed.errno,
            host=where,
            remedy=remedy,
            fate=fate,
        )
        error.log_text = _clean(failed.log, _MOST_LOG)
    else:
        error = kind(what, host=where, remedy=remedy, fate=fate)
    for note in failed.notes:
        error.add_note(_clean(note))
    return error


def _clean(text: object, most: int = _MOST) -> str:
    # Also lone surrogates, of a file name that is no UTF-8: they are not printable.
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text)[:most])
