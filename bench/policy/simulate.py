"""The rounds of a pre-copy, simulated: every round that could be made, and each cutover's downtime.

What is sent in a round was dirtied in the time of the one before, whatever made it go on.  So all
rules see the same rounds, and differ only in where they stop: one pass over a trace tells for every
stop what it would have cost, which is all that an oracle needs.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.policy.traces import PAGE, Trace
from phaul.policy.prediction import Costs

__all__ = ["GLANCE_S", "Link", "Round", "Run", "Scenario", "simulate"]

GLANCE_S = 0.2
"""How long preflight measures the dirty rate."""


@dataclass(frozen=True)
class Link:
    """Bytes a second, and seconds: what a round takes beside its bytes, and stands still for.

    `cutover_s` is what a cutover costs beside its bytes.  The bandwidth varies by `jitter` from
    round to round, and after `drop_s` seconds is only `drop` of itself.
    """

    bandwidth: float = 110e6
    round_s: float = 0.04
    still_s: float = 0.01
    cutover_s: float = 0.08
    jitter: float = 0.05
    drop_s: float = float("inf")
    drop: float = 1.0

    def rate(self, at: float, draw: random.Random) -> float:
        """The bandwidth of a transfer that begins at `at`."""
        rate = self.bandwidth * (1 + self.jitter * (2 * draw.random() - 1))
        return rate * (self.drop if at >= self.drop_s else 1.0)


@dataclass(frozen=True)
class Scenario:
    """A process to be moved: its private and shared pages, what it writes, and the way."""

    name: str
    pages: int
    make: Callable[[], Trace]
    shared: int = 0
    link: Link = Link()

    @property
    def costs(self) -> Costs:
        """What preflight would know, but for the dirty rate."""
        return Costs(self.pages * PAGE, self.shared * PAGE, restore_rate=1e15)


@dataclass(frozen=True)
class Round:
    """A round as `policy` sees it, and what a cutover right after it would really cost.

    `skipped_pages` of the memory were clean.  `final_pages` is what the final dump would send.
    """

    pages: int
    skipped_pages: int
    seconds: float
    begun_s: float
    frozen_s: float
    downtime_s: float = 0.0
    final_pages: int = 0

    @property
    def sent_bytes(self) -> int:
        """Memory that was sent, in bytes."""
        return self.pages * PAGE


@dataclass(frozen=True)
class Run:
    """All rounds that could be made, and what preflight knew."""

    rounds: tuple[Round, ...]
    costs: Costs


def simulate(
    scenario: Scenario,
    most_rounds: int,
    share: Callable[[list[Round]], float] = lambda rounds: 1.0,
) -> Run:
    """Make `most_rounds` rounds.

    `share` says, from the rounds so far, how much of its CPU time the process has in the next.
    """
    link, trace, total = scenario.link, scenario.make(), scenario.pages
    draw = random.Random(scenario.name)
    ran = 0.0
    rounds: list[Round] = []

    def dirty(seconds: float) -> int:
        nonlocal ran
        marks = bytearray(total)
        trace.mark(marks, ran, ran + seconds)
        ran += seconds
        return sum(marks)

    rate = dirty(GLANCE_S) * PAGE / GLANCE_S
    sent, now, speed = total, 0.0, link.rate(0.0, draw)
    while len(rounds) < most_rounds:
        has = share(rounds)
        seconds = link.round_s + sent * PAGE / speed
        made = Round(sent, total - sent, seconds, now, link.still_s)
        now += seconds
        sent = dirty((seconds - link.still_s) * has)
        speed = link.rate(now, draw)
        downtime = link.cutover_s + (sent + scenario.shared) * PAGE / speed
        rounds.append(replace(made, downtime_s=downtime, final_pages=sent + scenario.shared))
    return Run(tuple(rounds), replace(scenario.costs, dirty_rate=rate, dirty_s=GLANCE_S))
