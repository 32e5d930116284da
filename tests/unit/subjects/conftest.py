from pathlib import Path

import pytest

from tests.unit.subjects.fake_proc import FakeProc


@pytest.fixture
def fake_proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")
