"""The processes that the rules are compared on: 128 MiB each, over what 1 Gbit/s leaves.

The first round takes 1.2 s.  A larger process over a faster link would be the same: what counts is
how fast pages are dirtied beside how fast they are sent.
"""

import math
import random
from functools import partial
from typing import Final

from bench.policy.recorded import FOLDER, load
from bench.policy.simulate import Link, Scenario
from bench.policy.traces import (
    Growing,
    Huge,
    Idle,
    Make,
    Mixture,
    Phases,
    Sweep,
    Trace,
    Uniform,
    Zipf,
)

__all__ = ["SYNTHETIC", "drawn", "recorded"]

_MIB: Final = 256
"""Pages."""
_ALL: Final = 128 * _MIB
_LINK: Final = _ALL / 1.22
"""Pages a second."""


def _scenario(name: str, make: Make, shared: int = 0, link: Link | None = None) -> Scenario:
    return Scenario(name, _ALL, make, shared, link or Link())


SYNTHETIC: Final = (
    _scenario("idle", Idle),
    _scenario("uniform, 1 MiB hot", lambda: Uniform(0, _MIB, 10_000, 1)),
    _scenario("uniform, 16 MiB hot", lambda: Uniform(0, 16 * _MIB, 40_000, 2)),
    _scenario("uniform, 64 MiB, slow", lambda: Uniform(0, 64 * _MIB, 4_000, 3)),
    _scenario("uniform, 64 MiB, half the link", lambda: Uniform(0, 64 * _MIB, _LINK / 2, 4)),
    _scenario("uniform, all, a fifth of the link", lambda: Uniform(0, _ALL, _LINK / 5, 5)),
    _scenario("uniform, all, as fast as the link", lambda: Uniform(0, _ALL, _LINK, 6)),
    _scenario("uniform, all, three times the link", lambda: Uniform(0, _ALL, 3 * _LINK, 7)),
    _scenario("zipf, slow", lambda: Zipf(0, _ALL, 3_000, 8)),
    _scenario("zipf, fast", lambda: Zipf(0, _ALL, 15_000, 9)),
    _scenario("zipf, flat", lambda: Zipf(0, 64 * _MIB, 10_000, 10, skew=0.7)),
    _scenario("zipf, steep", lambda: Zipf(0, 64 * _MIB, 30_000, 11, skew=1.3)),
    _scenario("sweep, 2 MiB, fast", lambda: Sweep(0, 2 * _MIB, 10_000)),
    _scenario("sweep, 32 MiB, a third of the link", lambda: Sweep(0, 32 * _MIB, _LINK / 3)),
    _scenario("sweep, all, a third of the link", lambda: Sweep(0, _ALL, _LINK / 3)),
    _scenario("sweep, all, 0.8 of the link", lambda: Sweep(0, _ALL, _LINK * 0.8)),
    _scenario("sweep, all, twice the link", lambda: Sweep(0, _ALL, _LINK * 2)),
    _scenario("growing, a tenth of the link", lambda: Growing(0, _ALL, _LINK / 10)),
    _scenario("growing, 0.6 of the link", lambda: Growing(0, _ALL, _LINK * 0.6)),
    _scenario(
        "bursts of 0.1 s each 1 s", lambda: Phases(Uniform(0, 32 * _MIB, 60_000, 12), 1.0, 0.1)
    ),
    _scenario(
        "bursts of 1 s each 4 s", lambda: Phases(Uniform(0, 64 * _MIB, 60_000, 13), 4.0, 0.25, 1.0)
    ),
    _scenario("a sweep of 16 MiB each 2 s", lambda: Phases(Sweep(0, 16 * _MIB, 80_000), 2.0, 0.1)),
    _scenario(
        "busy for 2 s, then idle", lambda: Phases(Uniform(0, 96 * _MIB, _LINK, 14), 1e4, 2e-4)
    ),
    _scenario(
        "idle for 1.5 s, then busy",
        lambda: Phases(Uniform(0, 24 * _MIB, _LINK, 15), 1e4, 0.99985, 9998.5),
    ),
    _scenario(
        "hot and cold",
        lambda: Mixture(
            [Uniform(0, 4 * _MIB, 20_000, 16), Uniform(4 * _MIB, _ALL - 4 * _MIB, 2_000, 17)]
        ),
    ),
    _scenario(
        "hot, a sweep, and growing",
        lambda: Mixture(
            [
                Zipf(0, 32 * _MIB, 8_000, 18),
                Sweep(32 * _MIB, 64 * _MIB, 3_000),
                Growing(96 * _MIB, 32 * _MIB, 1_500),
            ]
        ),
    ),
    _scenario("huge pages, few writes", lambda: Huge(Uniform(0, _ALL, 20, 19))),
    _scenario("huge pages, many writes", lambda: Huge(Uniform(0, 64 * _MIB, 400, 20))),
    _scenario("shared memory, 16 MiB", lambda: Zipf(0, _ALL, 3_000, 21), shared=16 * _MIB),
    _scenario(
        "the link drops to a third",
        lambda: Uniform(0, 64 * _MIB, _LINK / 5, 22),
        link=Link(drop_s=1.0, drop=0.33),
    ),
    _scenario(
        "a link of 10 Gbit/s",
        lambda: Uniform(0, _ALL, _LINK, 23),
        link=Link(bandwidth=1.1e9),
    ),
    _scenario("a link that jitters", lambda: Zipf(0, _ALL, 10_000, 24), link=Link(jitter=0.4)),
)


def recorded() -> list[Scenario]:
    """The recorded processes, over a link of 100 Mbit/s and over a better one."""
    made = []
    for path in sorted(FOLDER.glob("*.json")):
        trace = load(path)
        for rate in (10, 40):
            name = f"{path.stem}, at {rate} MB/s"
            made.append(Scenario(name, trace.pages, partial(load, path), link=Link(rate * 1e6)))
    return made


def drawn(seed: int) -> Scenario:
    """A process and a link drawn at random: what no constant of the policy was chosen by."""
    draw = random.Random(seed)

    def between(low: float, high: float) -> float:
        return low * math.exp(math.log(high / low) * draw.random())

    def part() -> Trace:
        size = int(between(_MIB / 4, _ALL))
        first = draw.randrange(_ALL - size + 1)
        rate = between(100, 3 * _LINK)
        kinds: tuple[Make, ...] = (
            lambda: Uniform(first, size, rate, seed),
            lambda: Zipf(first, size, rate, seed, draw.uniform(0.5, 1.5)),
            lambda: Sweep(first, size, rate),
            lambda: Growing(first, size, rate),
        )
        made = draw.choice(kinds)()
        if draw.random() < 0.25:
            made = Phases(made, between(0.1, 10), draw.uniform(0.1, 0.9), draw.uniform(0, 10))
        if draw.random() < 0.15:
            made = Huge(made)
        return made

    trace = Mixture([part() for _ in range(draw.choice((1, 1, 2, 3)))])
    link = Link(
        bandwidth=between(40e6, 400e6),
        round_s=between(0.02, 0.1),
        still_s=between(0.003, 0.02),
        cutover_s=between(0.05, 0.12),
        jitter=draw.choice((0.02, 0.05, 0.2)),
    )
    shared = int(between(1, 8 * _MIB)) if draw.random() < 0.2 else 0
    return Scenario(f"drawn {seed}", _ALL, lambda: trace, shared, link)
