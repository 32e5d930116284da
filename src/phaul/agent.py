"""`phaul agent`: what ssh starts on the destination; it imports neither click nor rich.

    phaul agent                   the agent of one migration, over standard input and output
    phaul agent --memory TOKEN    the memory channel of the agent with that token

Runs on the destination.
"""

from collections.abc import Sequence

from phaul.transport.memory import splice_memory

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Be the agent; returns the exit status."""
    match list(arguments):
        case ["--memory", token]:
            splice_memory(token)
    return 0
