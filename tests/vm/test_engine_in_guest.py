"""Engine tests again, inside guests whose kernel tracks dirty memory: there they pre-copy."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import Lab
from tests.vm.conftest import run_pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FAILURES = "memory_channel or new_chain or cancel or dump_that or restore_that"
MOVES = "events or local_migration or (survives and (tree or dirtier))"


def test_by_pre_copy_they_end_as_without_it(lab: Lab) -> None:
    """Failures in the middle of a round and after rounds on one guest, moves on the other."""
    moves = ("tests/engine/test_move.py", "tests/engine/test_examples.py")
    with ThreadPoolExecutor() as both:  # some 45 s each, of one emulated processor
        there = both.submit(run_pytest, lab.dst, *moves, "-k", MOVES)
        said = run_pytest(lab.src, "tests/engine/test_failures.py", "-k", FAILURES)
        assert "6 passed" in said
        assert "4 passed" in there.result()
