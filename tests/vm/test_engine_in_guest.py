"""Engine tests again, inside a guest whose kernel tracks dirty memory: there they pre-copy."""

import pytest

from lab import Lab
from tests.vm.conftest import run_pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


def test_failures_in_the_middle_of_a_round_and_after_rounds(lab: Lab) -> None:
    which = "memory_channel or new_chain or cancel or dump_that or restore_that"
    said = run_pytest(lab.src, "tests/engine/test_failures.py", "-k", which)
    assert "6 passed" in said


def test_moves_by_pre_copy_on_one_machine(lab: Lab) -> None:
    which = "events or local_migration or (survives and (tree or dirtier))"
    files = ("tests/engine/test_move.py", "tests/engine/test_examples.py")
    said = run_pytest(lab.dst, *files, "-k", which)
    assert "4 passed" in said
