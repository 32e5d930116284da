"""The one live line at the bottom of a terminal: what is going on right now.

Used on the source while a migration runs.  Pure: the time is given.
"""

from typing import Final

from phaul.cli.render.look import Look, cells
from phaul.cli.render.status import under_way
from phaul.report.status import Phase, Status
from phaul.report.units import clean, duration, size, slowed

__all__ = ["bar", "live_line"]

_BAR: Final = 28
_HINT: Final = "Ctrl-C cancels"


def live_line(status: Status, now: float, look: Look) -> str:
    """The line for `status` at `now`, never wider than `look.width`; "" when all is over."""
    if status.phase.ended:
        return ""
    label, text = _said(status, now)
    hint = _HINT if status.phase.cancellable else ""
    elapsed = duration(now - status.started_unix) if now - status.started_unix >= 1 else ""
    share = _share(status)
    room = look.width or 80
    # What matters least is left out first.
    for parts in (
        (text, elapsed, hint, _BAR),
        (text, elapsed, "", _BAR),
        (text, elapsed, "", _BAR // 2),
        (text, "", "", _BAR // 2),
        (text, "", "", 0),
    ):
        said, tail_1, tail_2, width = parts
        tails = [tail for tail in (tail_1, tail_2) if tail]
        length = share is not None and width
        plain = "   ".join([label, *(["#" * width + " 100 %"] if length else []), said, *tails])
        if cells(plain) < room:
            break
    else:
        return look.paint(plain[: room - 1], "bold")
    shown = [look.paint(label, "bold")]
    if share is not None and width:
        shown.append(f"{bar(share, width, look)} {share:>4.0%}".replace("%", " %"))
    shown += [said, *(look.paint(tail, "dim") for tail in tails)]
    return "   ".join(shown)


def bar(share: float, width: int, look: Look) -> str:
    """A bar of `width` cells, filled to `share` (0 to 1)."""
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    full, half = divmod(halves, 2)
    rest = width - full - half
    if not look.fancy:
        return "#" * full + ("-" if half else "") + "." * rest
    filled = look.paint("\u2501" * full + ("\u2578" if half else ""), "bar")
    return filled + look.paint("\u2500" * rest, "dim")


def _share(status: Status) -> float | None:
    if status.round is None or status.round_expected_bytes <= 0:
        return None
    return min(status.round_sent_bytes / status.round_expected_bytes, 1.0)


def _said(status: Status, now: float) -> tuple[str, str]:
    """The label, as wide as a round's, and what is being done."""
    there = clean(status.destination or status.target or "the other host")
    frozen = f"frozen for {duration(now - status.phase_unix)}"
    match status.phase:
        case Phase.CONNECTING:
            return "connecting", f"to {there}"
        case Phase.CHECKING:
            return "checking  ", f"this host and {there}"
        case Phase.PRE_COPY if status.round is not None:
            slow = f", {slowed(status.share)}" if status.share < 1 else ""
            return f"round {status.round:<2}", under_way(status, now) + slow
        case Phase.CUTOVER if status.round is not None:
            return "cutover ", f"{under_way(status, now)}, {frozen}"
        case Phase.CUTOVER:
            return "cutover ", f"dumping, {frozen}"
        case Phase.RESTORING:
            return "cutover ", f"restoring on {there}"
        case Phase.RELEASING:
            return "cutover ", f"letting it run on {there}"
        case Phase.RUNNING_THERE if status.following_bytes:
            left = size(status.following_bytes)
            return "memory  ", f"it runs on {there}; {left} still follow, and are needed from here"
        case Phase.RUNNING_THERE:
            return "done    ", f"it runs on {there}; cleaning up"
        case _:
            return "preparing", f"the move to {there}"
