"""phaul's own share of a downtime: what is neither CRIU's work nor bytes on the wire.  Pure.

The gap of the heartbeat, without all stretches of it in which CRIU was at work or something was
sent, on either host.  What runs beside these costs nothing, and so is no part of it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from bench.stopwatch import Span

__all__ = ["BEGINNING", "CRIU", "WIRE", "own_share", "within"]

CRIU: Final = frozenset(
    {
        "CRIU's dump, to post-dump",
        "there: CRIU's restore, to post-restore",
        "there: CRIU's release",
    }
)
WIRE: Final = frozenset({"an image, sent"})
BEGINNING: Final = "the last beat"

Stretch = tuple[float, float]


def own_share(gap: Stretch, spans: Iterable[Span]) -> dict[str, float]:
    """The stretches of `gap` that none of CRIU's spans or the wire's covers, in seconds.

    Each by the name of what ended before it, in the order of time; their sum is the share.
    """
    found: dict[str, float] = {}
    at, end = gap
    before = BEGINNING
    others = sorted((begun, ended, name) for name, begun, ended in spans if name in CRIU | WIRE)
    for begun, ended, name in [*others, (end, end, "")]:
        if at < min(begun, end):
            found[before] = found.get(before, 0.0) + min(begun, end) - at
        if ended > at:
            at, before = ended, name
    return found


def within(gap: Stretch, spans: Sequence[Span]) -> dict[str, float]:
    """How long each step took within the gap, in seconds, in the order of their beginnings."""
    taken: dict[str, float] = {}
    for name, begun, ended in sorted(spans, key=lambda span: span[1]):
        seconds = min(ended, gap[1]) - max(begun, gap[0])
        if seconds > 0:
            taken[name] = taken.get(name, 0.0) + seconds
    return taken
