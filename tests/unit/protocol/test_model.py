"""One owner at each moment of the cutover, whatever dies, is cut or loses power.

Both ends act in the small world of `model` by their real owners, and what was torn apart is settled
by the real table.  PHAUL_MODEL is how many times as many runs are tried (1 by default).
"""

import itertools
import os
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from phaul.errors import ProtocolError
from tests.unit.protocol.faults import FAULTS, finish, go_on, new, pick
from tests.unit.protocol.flaws import Flaw, LeftOver, Lost, TwoCopies, TwoHistories, Violation
from tests.unit.protocol.model import Held, World
from tests.unit.protocol.source_side import resolve

MORE: Final = int(os.environ.get("PHAUL_MODEL", "1"))
RUNS: Final = 200 * MORE
STRIDE: Final = 1 if MORE > 1 else 9
"""Of the pairs of faults, each one or each ninth."""

SEARCH: Final = settings(
    max_examples=2000,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
Wanted = tuple[type[Exception], ...]
INDEX: Final = st.integers(0, 30)
UNDISTURBED: Final = 60
"""More steps than a migration has without a fault."""


class Cutover(RuleBasedStateMachine):
    """Runs of the world; the world itself looks after each single step that nothing is violated."""

    locks: tuple[bool, ...] = (True, False)
    flaws: frozenset[Flaw] = frozenset()
    faults: tuple[str, ...] = tuple(FAULTS)
    ends = True

    @initialize(data=st.data(), steps=st.integers(0, UNDISTURBED))
    def begin(self, data: st.DataObject, steps: int) -> None:
        self.world = new(lock=data.draw(st.sampled_from(self.locks)), flaws=self.flaws)
        go_on(self.world, steps)

    @rule(steps=st.integers(1, 30))
    def all_go_on(self, steps: int) -> None:
        go_on(self.world, steps)

    @rule(index=INDEX)
    def one_goes_on(self, index: int) -> None:
        pick(self.world, index)

    @rule(data=st.data(), index=INDEX)
    def fault(self, data: st.DataObject, index: int) -> None:
        happen(self.world, data.draw(st.sampled_from(self.faults)), index)

    @rule()
    def resolve(self) -> None:
        resolve(self.world)

    def teardown(self) -> None:
        if self.ends and hasattr(self, "world") and not self.world.violated:
            finish(self.world)


TestCutover = Cutover.TestCase
TestCutover.settings = settings(max_examples=RUNS, stateful_step_count=25, deadline=None)


def happen(world: World, name: str, index: int = 0) -> None:
    world.log.append(f"*** {name}")
    FAULTS[name](world, index)


def runs_there(world: World) -> bool:
    return world.copy is Held.RUNNING and not world.alive


def play(world: World, *plan: tuple[int, str]) -> World:
    """So many steps, then this fault, and so on; resolve is started as soon as it may."""
    for steps, name in plan:
        go_on(world, steps)
        resolve(world)
        happen(world, name)
    finish(world)
    return world


@pytest.mark.parametrize("lock", [True, False])
def test_without_a_fault_it_runs_there(lock: bool) -> None:
    world = new(lock=lock)
    assert go_on(world, 1000) < UNDISTURBED
    finish(world)
    assert runs_there(world)


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("name", sorted(FAULTS))
def test_one_fault_at_each_moment(lock: bool, name: str) -> None:
    for steps in range(UNDISTURBED):
        play(new(lock=lock), (steps, name))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lock", [True, False])
def test_two_faults(lock: bool) -> None:
    plans = [
        ((first, one), (second, other))
        for first in range(UNDISTURBED)
        for one in FAULTS
        for second in range(0, 40, 4)
        for other in FAULTS
    ]
    # The stride is no divisor of anything here, so that in time all kinds come.
    for plan in plans[:: STRIDE * 7 if STRIDE > 1 else 1]:
        play(new(lock=lock), *plan)


@pytest.mark.parametrize("lock", [True, False])
def test_a_destination_that_loses_power_before_it_runs_restores_from_the_images(lock: bool) -> None:
    seen = 0
    for steps in range(UNDISTURBED):
        world = new(lock=lock)
        go_on(world, steps)
        if not world.alive and world.copy is Held.STILL:
            seen += 1
            happen(world, "the destination loses power")
            finish(world)
            assert runs_there(world)
    assert seen


def test_under_the_lock_a_source_that_loses_power_after_ready_loses_nothing() -> None:
    seen = 0
    for steps in range(UNDISTURBED):
        world = new(lock=True)
        go_on(world, steps)
        if world.copy is Held.STILL and world.there.kept is world.there.seen:
            seen += 1
            happen(world, "the source loses power")
            finish(world)
            assert runs_there(world)
    assert seen


def search(flaw: Flaw, *locks: bool, faults: tuple[str, ...], ends: bool) -> None:
    kind = type(
        "Flawed",
        (Cutover,),
        {"flaws": frozenset({flaw}), "faults": faults, "locks": locks, "ends": ends},
    )
    run_state_machine_as_test(kind, settings=SEARCH)


def sweep(flaw: Flaw, lock: bool, faults: tuple[str, ...], wanted: Wanted) -> None:
    """These faults in this order, at all the moments of a run."""
    moments = [range(UNDISTURBED), range(32), range(0, 32, 2)][: len(faults)]
    for steps in itertools.product(*moments):
        try:
            play(new(lock=lock, flaws=frozenset({flaw})), *zip(steps, faults, strict=True))
        except Violation as error:
            if isinstance(error, wanted):
                raise


_LATE: Final = "phaul waits no longer"
_LOST: Final = "a message is lost"
_DIES: Final = "phaul dies"
_DARK: Final = "the source loses power"
_DARK_THERE: Final = "the destination loses power"
_BACK: Final = "the kernel writes back"

FOUND: Final[dict[Flaw, tuple[bool, tuple[str, ...], Wanted]]] = {
    Flaw.HOLD_NOT_SEEN: (True, ("source criu dies", _DARK), (TwoHistories,)),
    Flaw.LOCKED_UNSYNCED: (True, (_DARK,), (Lost, LeftOver)),
    Flaw.DECIDED_UNSYNCED: (False, (_DARK,), (Lost, LeftOver)),
    Flaw.BACK_UNSYNCED: (True, (_LATE, _LOST, _DARK), (TwoHistories,)),
    Flaw.READY_UNSYNCED: (True, (_DARK_THERE,), (Lost,)),
    Flaw.IMAGES_UNSYNCED: (True, (_DARK_THERE,), (Lost,)),
    Flaw.RELEASING_AFTER: (True, ("agent dies",), (TwoCopies, TwoHistories)),
    Flaw.LEASE_DROPS_IMAGES: (True, ("the agent waits no longer",), (Lost,)),
    Flaw.BYE_BEFORE_THERE: (True, (_DARK,), (Lost, TwoHistories)),
    Flaw.COMMIT_AFTER_DISCARD: (True, (_LATE, _LOST), (TwoCopies, TwoHistories)),
    Flaw.RESUME_WITHOUT_ROOT: (True, ("source criu dies",), (ProtocolError,)),
}


@pytest.mark.parametrize("flaw", FOUND, ids=lambda flaw: flaw.name.lower())
def test_each_rule_is_needed(flaw: Flaw) -> None:
    lock, faults, violations = FOUND[flaw]
    with pytest.raises(violations):
        sweep(flaw, lock, faults, violations)


def test_kill_and_commit_swapped_make_two() -> None:
    with pytest.raises((TwoCopies, TwoHistories)):
        search(Flaw.COMMIT_BEFORE_KILL, False, faults=(_DIES, "source criu dies"), ends=False)


def test_a_second_lock_that_does_not_hold_makes_two() -> None:
    with pytest.raises((TwoCopies, TwoHistories)):
        search(Flaw.LOCK_LETS_GO, True, faults=(_DIES, _DARK), ends=True)


def test_every_flaw_is_searched_for() -> None:
    assert {*FOUND, Flaw.COMMIT_BEFORE_KILL, Flaw.LOCK_LETS_GO} == set(Flaw)
