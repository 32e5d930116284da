import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import children, descriptors

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

__all__ = ["FakeSsh", "children", "descriptors"]


@dataclass
class FakeSsh:
    """The fake ssh on the PATH, and what it is to do."""

    plan_path: Path
    notes_path: Path

    def play(self, **plan: object) -> None:
        self.plan_path.write_text(json.dumps({"notes": str(self.notes_path), **plan}))

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes_path.read_text().splitlines()]


def script(path: Path, *command: object) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    """A directory with an `ssh` and a `phaul`, first on the PATH."""
    fake = FakeSsh(tmp_path / "plan.json", tmp_path / "notes.jsonl")
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "ssh", sys.executable, HERE / "fake_ssh.py")
    script(programs / "phaul", sys.executable, HERE / "fake_agent.py")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH", str(fake.plan_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    fake.play()
    return fake
