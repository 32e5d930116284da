"""Each fault at each moment of a migration between two machines: exactly one process, whole."""

from collections.abc import Callable
from typing import Final

import pytest

from lab import Lab
from tests.vm.faults.batch import Batch, Judged
from tests.vm.faults.cases import Fault, Moment

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

BEFORE: Final = (Moment.CONNECTING, Moment.PREFLIGHT, Moment.IN_ROUND, Moment.BETWEEN_ROUNDS)
CUTOVER: Final = (Moment.FREEZING, Moment.LOCKED, Moment.RESTORING, Moment.READY)
AFTER: Final = (Moment.DECIDED, Moment.GONE, Moment.RELEASING, Moment.RUNNING)
KILLED: Final = (Moment.IN_ROUND, Moment.READY, Moment.DECIDED)
"""At once: each group is one batch."""

GROUPS: Final = [
    *((fault, group) for fault in list(Fault)[:5] for group in (BEFORE, CUTOVER, AFTER)),
    *((fault, KILLED) for fault in list(Fault)[5:]),
]
CASES: Final = [(fault, moment, group) for fault, group in GROUPS for moment in group]

Find = Callable[[Fault, Moment, tuple[Moment, ...]], Judged]


@pytest.fixture(scope="module")
def judged(lab: Lab) -> Find:
    """What came of a case; its batch is run when its first one is asked for."""
    done: dict[tuple[Fault, tuple[Moment, ...]], dict[Moment, Judged]] = {}

    def find(fault: Fault, moment: Moment, group: tuple[Moment, ...]) -> Judged:
        if (fault, group) not in done:
            done[fault, group] = Batch(lab, fault, group).run()
        return done[fault, group][moment]

    return find


@pytest.mark.parametrize(
    ("fault", "moment", "group"),
    CASES,
    ids=[f"{fault.value}-{moment.value}" for fault, moment, _ in CASES],
)
def test_exactly_one_is_left(
    judged: Find, fault: Fault, moment: Moment, group: tuple[Moment, ...]
) -> None:
    found = judged(fault, moment, group)
    print(f"\n{fault.value} {moment.value}: {found.place}; {found.story}")
    assert not found.wrong, found
