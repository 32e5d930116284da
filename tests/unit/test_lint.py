"""The linters, as tests: what they say is shown when they fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CODE = ("src", "lab", "tests", "examples", "bench", "tools")
TYPED = ("src", "tests/unit", "tests/hosts", "tests/faults", "examples", "bench", "tools", "lab")
MOST_LINES = 400


def run(tool: str, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    program = BIN / tool
    if not program.exists():
        pytest.skip(f"{tool} is not installed beside this Python")
    return subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def passes(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def with_python(*folders: str) -> list[str]:
    return [folder for folder in folders if any((ROOT / folder).rglob("*.py"))]


def test_ruff_check() -> None:
    passes(run("ruff", "check", "."))


def test_ruff_format() -> None:
    passes(run("ruff", "format", "--check", "."))


@pytest.mark.timeout(600)
def test_mypy() -> None:
    passes(run("mypy", *with_python(*TYPED)))


def test_the_layers() -> None:
    passes(run("lint-imports"))


def test_the_layers_can_fail(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src/phaul", tmp_path / "src/phaul")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src/phaul/policy/stop.py").open("a") as file:
        file.write("\nfrom phaul.criu.swrk import Swrk\n")
    done = run("lint-imports", cwd=tmp_path)
    assert done.returncode != 0
    assert "phaul.policy.stop" in done.stdout


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(errors="replace").splitlines())
        for folder in CODE
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".c", ".h", ".sh", ".proto"}
    }
    assert lengths
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}
