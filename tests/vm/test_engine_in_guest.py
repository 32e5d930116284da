"""Engine tests again, inside a guest whose kernel tracks dirty memory: there they pre-copy."""

import pytest

from lab import Guest, Lab
from tools.guests import ENVIRONMENT, PROJECT

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


def run_pytest(guest: Guest, *words: str) -> str:
    """Run engine tests in the guest, all of which must pass; what pytest said."""
    result = guest.run(
        ["python3", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words],
        cwd=PROJECT,
        env={**ENVIRONMENT, "PHAUL_SLOW": "10"},
        timeout=600,
    )
    said = result.stdout.decode() + result.stderr.decode()
    assert result.status == 0, said
    return said


def test_failures_in_the_middle_of_a_round_and_after_rounds(lab: Lab) -> None:
    which = "memory_channel or new_chain or cancel or dump_that or restore_that"
    said = run_pytest(lab.src, "tests/engine/test_failures.py", "-k", which)
    assert "7 passed" in said


def test_moves_by_pre_copy_on_one_machine(lab: Lab) -> None:
    which = "events or local_migration or (survives and (tree or dirtier))"
    said = run_pytest(lab.dst, "tests/engine", "-k", which)
    assert "4 passed" in said


def test_older_criu_and_its_images(mixed: Lab) -> None:
    which = "version_features or cpu or dump_held or (survives and dirtier)"
    said = run_pytest(mixed.dst, "tests/engine", "-k", which)
    assert "4 passed" in said
