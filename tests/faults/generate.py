"""Chooses the cases of a run: from a seed, each once, spread over all kinds.  Pure."""

import random
from collections.abc import Iterator
from typing import Final

from tests.faults.plan import EVER, LATE, FaultPoint, Kind
from tests.faults.steps import ASKED, SETTLEMENT, TIMELINE, UNSETTLED, steps_of

__all__ = ["WEIGHTS", "cases"]

WEIGHTS: Final = {
    Kind.KILL: 30,
    Kind.STOP: 14,
    Kind.CUT: 18,
    Kind.STALL: 9,
    Kind.CORRUPT: 6,
    Kind.LINK: 9,
    Kind.DISK: 6,
    Kind.MEMORY: 2,
    Kind.FAULT: 2,
    Kind.EXIT: 3,
    Kind.TAKEN: 1,
}
"""Of a hundred; MISSING has one case only."""

_VICTIMS: Final = ("piggie", "dirtier", "tree", "shared")
_WITH_CONNECTIONS: Final = 0.04
"""Of the kills on the destination.  Not of the source's: the network lock of a CRIU or a phaul that
was killed there stays, and a person has to remove it (`nft list tables`)."""
_TWO: Final = 0.3
"""Of the kills, so many are followed by a second fault."""
_BYTES: Final = {
    ("control", "ask"): {"piggie": 6500, "dirtier": 6600, "tree": 43_000, "shared": 7000},
    ("control", "answer"): dict.fromkeys(_VICTIMS, 1650),
    ("memory", "ask"): {
        "piggie": 131_000, "dirtier": 4_300_000, "tree": 520_000, "shared": 2_900_000,
    },
    ("memory", "answer"): dict.fromkeys(_VICTIMS, 6),
}  # fmt: skip
"""About as many as pass in each flow: a byte below it is reached."""
_CRIU: Final = ("dump", "restore")
_BEFORE_RESTORE: Final = TIMELINE[
    TIMELINE.index("ask/hello+") : TIMELINE.index("criu/restore/request")
]
_FAULTS: Final = {"source": (1, 3, 5, 131, 132, 137), "agent": (2, 6, 127, 133)}
"""CRIU's own, those that do something to such victims; from 127 on they are not fatal."""


def cases(seed: int, *, kinds: tuple[Kind, ...] = tuple(WEIGHTS)) -> Iterator[FaultPoint]:
    """Faults without an end, none twice; a seed gives the same ones for ever."""
    chance = random.Random(seed)
    seen: set[str] = set()
    yield FaultPoint(kind=Kind.NONE, victim=chance.choice(_VICTIMS))
    yield FaultPoint(kind=Kind.MISSING)
    weights = [WEIGHTS[kind] for kind in kinds]
    while True:
        (kind,) = chance.choices(kinds, weights)
        fault = _one(chance, kind)
        if kind is Kind.KILL and chance.random() < _TWO:
            fault = _two(chance)
        if str(fault) not in seen:
            seen.add(str(fault))
            yield fault


def _two(chance: random.Random) -> FaultPoint:
    """A migration that has to be settled, and a fault in the settlement."""
    at = chance.choice(SETTLEMENT)
    who = chance.choice(("settle", "agent"))
    kind = chance.choices((Kind.KILL, Kind.CUT, Kind.STOP, Kind.LINK), (6, 3, 1, 2))[0]
    match kind:
        case Kind.CUT:
            notice = chance.choice(("both", "source", "agent"))
            second = FaultPoint(kind=kind, who=notice, at=at, channel="control", flow="ask")
        case Kind.STOP:
            second = FaultPoint(kind=kind, who=who, at=at, time=chance.choice(("0.2", "3")))
        case Kind.LINK:
            second = FaultPoint(kind=kind, at=at, time=chance.choice(("0.3", "2.5")))
        case _:
            second = FaultPoint(kind=kind, who=who, at=at)
    return FaultPoint(
        kind=Kind.KILL,
        victim=chance.choice(_VICTIMS),
        who=chance.choice(("source", "source", "agent", "restore")),
        at=chance.choice(UNSETTLED),
        time=chance.choice(("", "", "3.5")),
        then=second,
    )


def _one(chance: random.Random, kind: Kind) -> FaultPoint:
    victim = chance.choice(_VICTIMS)
    match kind:
        case Kind.KILL:
            who = chance.choice(("source", "agent", *_CRIU, "keeper"))
            at = chance.choice(steps_of(who))
            if who in ("agent", "restore") and chance.random() < _WITH_CONNECTIONS:
                victim = "tcp"
            # The person comes at once, or when the lease is over.
            late = who == "source" and at in UNSETTLED and chance.random() < 0.3
            return FaultPoint(kind=kind, victim=victim, who=who, at=at, time="3.5" if late else "")
        case Kind.EXIT:
            who = chance.choice(_CRIU)
            return FaultPoint(kind=kind, victim=victim, who=who, at=chance.choice(steps_of(who)))
        case Kind.STOP:
            who = chance.choice(("source", "agent", *_CRIU))
            most = (EVER,) if who == "source" else (EVER, LATE)
            time = chance.choices(("0.2", "3", *most), (5, 2, *(2 for _ in most)))[0]
            at = chance.choice(steps_of(who))
            return FaultPoint(kind=kind, victim=victim, who=who, at=at, time=time)
        case Kind.CUT | Kind.STALL:
            return _channel(chance, kind, victim)
        case Kind.CORRUPT:
            # Of a message: what garbles bytes is not a network, where ssh and TLS check them, but
            # somebody who writes into the channel.
            flow = chance.choice(("ask", "answer"))
            name = chance.choice(ASKED).removeprefix("ask/")
            if flow == "answer" and name.startswith("image"):
                name = "restore"
            number = chance.randrange(16)
            return FaultPoint(
                kind=kind, victim=victim, channel="control", flow=flow, at=f"{flow}/{name}-",
                number=number,
            )  # fmt: skip
        case Kind.LINK:
            at = chance.choice(TIMELINE[1:])
            who = chance.choices(("", "both", "source", "agent"), (4, 2, 1, 1))[0]
            time = chance.choices(("0.3", "2.5", EVER), (1, 2, 2))[0]
            return FaultPoint(kind=kind, victim=victim, who=who, at=at, time=time)
        case Kind.DISK:
            who = chance.choice(("source", "destination"))
            return FaultPoint(kind=kind, victim=victim, who=who, at=chance.choice(TIMELINE))
        case Kind.MEMORY:
            at = chance.choice(("criu/restore/request", "criu/restore/pre-restore"))
            number = chance.randrange(5, 27)
            return FaultPoint(kind=kind, victim=victim, who="restore", at=at, number=number)
        case Kind.FAULT:
            who = chance.choice(tuple(_FAULTS))
            number = chance.choice(_FAULTS[who])
            return FaultPoint(kind=kind, victim=victim, who=who, number=number)
        case Kind.TAKEN:
            at = chance.choice(_BEFORE_RESTORE[_BEFORE_RESTORE.index("answer/survey+") :])
            return FaultPoint(kind=kind, victim=victim, at=at)
        case _:
            raise ValueError(f"there is no choice of {kind}")


def _channel(chance: random.Random, kind: Kind, victim: str) -> FaultPoint:
    """One channel cut or stalled: at a message, or at any byte."""
    channel, flow = chance.choice((("control", "ask"), ("control", "answer"), ("memory", "ask"),
                                   ("memory", "answer")))  # fmt: skip
    who = chance.choices(("both", "source", "agent"), (3, 1, 1))[0] if kind is Kind.CUT else ""
    time = "" if kind is Kind.CUT else chance.choices(("0.3", "3", EVER), (3, 2, 2))[0]
    if channel == "control" and chance.random() < 0.6:
        steps = [step for step in TIMELINE[1:] if step.startswith(("ask/", "answer/", "event/"))]
        at = chance.choice(steps)
        return FaultPoint(
            kind=kind, victim=victim, who=who, channel=channel, flow=flow, at=at, time=time
        )
    byte = chance.randrange(_BYTES[channel, flow][victim])
    return FaultPoint(
        kind=kind, victim=victim, who=who, channel=channel, flow=flow, byte=byte, time=time
    )
