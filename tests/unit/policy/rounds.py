"""Rounds and processes for the tests of the policy."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from phaul.policy.prediction import Costs

MIB = 1 << 20


@dataclass(frozen=True)
class Round:
    sent_bytes: int
    seconds: float
    begun_s: float
    frozen_s: float = 0.01


ROUNDS = st.lists(
    st.builds(
        Round,
        st.integers(0, 1 << 40),
        st.floats(0.001, 1e4),
        st.floats(0, 1e6),
        st.floats(0, 10),
    ),
    min_size=1,
    max_size=8,
)
COSTS = Costs(memory_bytes=1 << 30, shared_bytes=0, restore_rate=1e12)


def made(
    dirty: Callable[[float], float], count: int, bandwidth: float = 100 * MIB, beside: float = 0.03
) -> list[Round]:
    """The rounds of a process of 1 GiB that dirties `dirty` bytes in a time."""
    rounds: list[Round] = []
    sent, begun = float(1 << 30), 0.0
    for _ in range(count):
        seconds = beside + sent / bandwidth
        rounds.append(Round(int(sent), seconds, begun))
        begun += seconds
        sent = min(dirty(seconds - 0.01), 1 << 30)
    return rounds


def hot(size: int) -> Callable[[float], float]:
    """The same bytes all the time."""
    return lambda seconds: size


def sweep(rate: float) -> Callable[[float], float]:
    """Bytes a second, none twice."""
    return lambda seconds: rate * seconds
