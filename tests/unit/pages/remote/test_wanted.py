"""What is asked for next, against what has to hold whatever happens in whatever order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from phaul.pages.remote.wanted import Wanted

TOTAL = 40
spans = st.tuples(st.integers(0, TOTAL - 1), st.integers(1, 9)).map(
    lambda of: (of[0], min(of[1], TOTAL - of[0]))
)


class Machine(RuleBasedStateMachine):
    """A destination whose source answers, or does not; pages are numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted(TOTAL)
        self.here: set[int] = set()
        self.swept: set[int] = set()
        self.awaited: set[int] = set()

    @rule(span=spans)
    def somebody_waits(self, span: tuple[int, int]) -> None:
        first, count = span
        asked = {n for at, of in self.wanted.urgent(first, count) for n in range(at, at + of)}
        assert asked == set(range(first, first + count)) - self.here - self.awaited
        self.awaited |= asked
        self.swept -= asked
        free = set(range(TOTAL)) - self.here - self.swept - self.awaited
        behind = [n for n in sorted(free) if n >= first + count]
        if behind:
            found = self.wanted.sweep(3)
            assert found is not None
            assert found[0] == behind[0]
            self.swept |= set(range(found[0], sum(found)))

    @rule(most=st.integers(1, 9), kept=st.integers(0, 9))
    def sweep(self, most: int, kept: int) -> None:
        found = self.wanted.sweep(most)
        free = set(range(TOTAL)) - self.here - self.swept - self.awaited
        if found is None:
            assert not free
            return
        first, count = found
        assert 0 < count <= most
        asked = set(range(first, first + count))
        assert asked <= free
        if kept < count:
            self.wanted.unsweep(first + kept, count - kept)
            asked = set(range(first, first + kept))
        self.swept |= asked

    @rule(span=spans)
    def arrives(self, span: tuple[int, int]) -> None:
        self.wanted.arrived(*span)
        came = set(range(span[0], sum(span)))
        self.here |= came
        self.swept -= came
        self.awaited -= came

    @rule()
    def link_is_lost(self) -> None:
        self.wanted.lost()
        self.swept = set()

    @invariant()
    def it_knows_what_there_is(self) -> None:
        assert self.wanted.lacking == TOTAL - len(self.here)
        assert self.wanted.swept == len(self.swept)
        again = {n for at, of in self.wanted.awaited() for n in range(at, at + of)}
        assert again == self.awaited
        for first in range(TOTAL):
            run = next((n for n in range(first, TOTAL) if n not in self.here), TOTAL) - first
            assert self.wanted.here(first, 5) == min(run, 5)


TestWanted = Machine.TestCase
TestWanted.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
