"""`phaul --version`.  Runs on both hosts."""

from phaul._version import __version__

__all__ = ["version_text"]


def version_text() -> str:
    """The version of phaul."""
    return f"phaul {__version__}"
