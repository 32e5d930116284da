"""What is said of each event, in lines that stay.

Used on the source while a migration runs.  Pure.  The result and an error are said by others, at
the end.
"""

from phaul.cli.render.findings import problems_text
from phaul.cli.render.look import Look
from phaul.cli.render.plan import plan_text
from phaul.cli.render.result import round_text
from phaul.report import (
    Amplified,
    Checked,
    Connected,
    Connecting,
    CutoverStarted,
    Drained,
    Draining,
    Event,
    Held,
    HugePagesSplit,
    Planned,
    PreCopyStopped,
    RoundFinished,
    RoundStarted,
    Running,
    SlowedDown,
    SourceGone,
    Started,
)
from phaul.report.report import PAGE_SIZE
from phaul.report.units import clean, duration, size, slowed

__all__ = ["Narrator"]


class Narrator:
    """Says each event at the level `verbose`; `live` where a live line tells the rest."""

    def __init__(self, *, verbose: int = 0, live: bool = False) -> None:
        self._verbose = verbose
        self._live = live
        self._there = "destination"
        self._planned = False

    def lines(self, event: Event, look: Look) -> list[str]:
        """The lines, each at most as wide as `look` allows; often none."""
        text = self._text(event, look)
        return text.splitlines() if text else []

    def _text(self, event: Event, look: Look) -> str:
        match event:
            case Connecting(id=name, target=target):
                of = f"migration {clean(name)}, " if name else ""
                return f"{of}to {clean(target)}"
            case Connected():
                self._there = clean(event.host)
                criu, kernel = clean(event.criu), clean(event.kernel)
                said = f"phaul {clean(event.phaul)}, criu {criu}, Linux {kernel}"
                return f"connected to {self._there}: {said}"
            case Checked(findings=findings):
                return problems_text(
                    findings, look, destination=self._there, everything=self._verbose > 0
                )
            case Planned(plan=plan):
                self._planned = True
                return plan_text(plan, look, everything=self._verbose > 0)
            case Started():
                return self._started(event)
            case RoundFinished(round=done):
                label = look.paint(f"round {done.number:<2}", "bold")
                return f"{label}  {round_text(done, verbose=self._verbose > 0)}"
            case Amplified(times=times, can_split=can_split):
                how = "; --split-huge-pages would split them first" if can_split else ""
                return (
                    f"huge      pages of 2 MiB are sent whole: about {times:.0f} times what was "
                    f"written{how}"
                )
            case HugePagesSplit(split_bytes=split, left_bytes=left, seconds=seconds):
                rest = f", {size(left)} are left" if left else ""
                return (
                    f"split     {size(split)} of huge pages in {duration(seconds)}{rest}; "
                    "khugepaged waits"
                )
            case SlowedDown(share=share):
                return f"slower    it does not converge: {slowed(share)} of its CPU time"
            case PreCopyStopped(explanation=why):
                return f"cutover   {clean(why)}"
            case _:
                return self._detail(event)

    def _started(self, event: Started) -> str:
        if self._planned and not self._verbose:
            return f"moving {clean(event.name)}, PID {event.pid}"
        way = event.way.value + (f" ({clean(event.reason)})" if event.reason else "")
        return f"moving {clean(event.name)}, PID {event.pid}, {size(event.memory_bytes)}, by {way}"

    def _detail(self, event: Event) -> str:
        """What only -v tells, and a pipe that has no live line."""
        match event:
            case CutoverStarted() if self._verbose or not self._live:
                return "cutover   the process is being frozen and dumped"
            case Held(seconds=seconds) if self._verbose:
                return f"cutover   dumped, all has arrived after {duration(seconds)}"
            case SourceGone() if self._verbose or not self._live:
                return f"cutover   gone from here; it is {self._there}'s now"
            case Running(host=host, pid=pid) if self._verbose:
                return f"cutover   running on {clean(host)}, PID {pid}"
            case Draining(pages=pages, given=given, follows=True) if (
                self._verbose or not self._live
            ):
                left = size(max(pages - given, 0) * PAGE_SIZE)
                return f"memory    {left} still to follow; this host is needed until then"
            case Draining(pages=pages, given=given) if self._verbose > 1:
                return f"memory    {size(given * PAGE_SIZE)} of {size(pages * PAGE_SIZE)} are there"
            case Drained(pages=pages, seconds=seconds) if self._verbose:
                return f"memory    {size(pages * PAGE_SIZE)} came in {duration(seconds)}, as it ran"
            case RoundStarted(number=number) if self._verbose > 1:
                return f"round {number} begins"
            case _:
                return ""
