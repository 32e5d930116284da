"""The source's session: preflight, the rounds of the pre-copy, the cutover; in which order."""

from phaul.source.cutover import Cutover, HeldDump, Release
from phaul.source.session import Local, Remote, SourceSession

__all__ = ["Cutover", "HeldDump", "Local", "Release", "Remote", "SourceSession"]
