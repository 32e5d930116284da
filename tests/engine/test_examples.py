"""The examples, run as a reader of them would."""

import subprocess
import sys

import pytest

from tests.engine.conftest import SLOW
from tests.engine.test_driver import has_soft_dirty

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]


def test_local_migration_moves_a_piggie_and_says_how() -> None:
    words = [sys.executable, "-m", "examples.local_migration"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert done.returncode == 0, done.stderr
    assert "without a gap" in done.stdout
    if has_soft_dirty():
        assert "pre-copy" in done.stdout
        assert "round 0" in done.stdout
    else:
        assert "stop and copy: the kernel does not track dirty memory" in done.stdout
