import json
import os
from pathlib import Path

import pytest

from phaul.cli.main import main
from phaul.cli.report import show_report
from phaul.errors import UsageError
from phaul.report import Report
from phaul.storage.registry import Registry
from phaul.storage.state_dir import StateDir
from tools.sample import REPORT


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PHAUL_STATE", str(tmp_path / "state"))
    registry = Registry(StateDir.open())
    handle = registry.begin(
        pid=os.getpid(), name="postgres", target="root@beta", max_downtime_s=0.3
    )
    handle.finish(REPORT.to_json())
    return handle.id


@pytest.mark.parametrize("named", ["whole", "beginning", "last"])
def test_as_text(migration: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = {"whole": migration, "beginning": migration[:2], "last": "last"}[named]
    assert main(["report", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith("process   postgres runs on beta, PID 4242; it is gone from alpha\n")
    assert "round 4" in out


def test_as_json(migration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", migration, "--json"]) == 0
    assert Report.from_json(capsys.readouterr().out.encode()) == REPORT


def test_as_a_page(migration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", migration, "--html", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page").read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == ""
    assert main(["report", migration, "--html", "-"]) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("name", "begins"),
    [("x.html", "<!DOCTYPE"), ("x.JSON", '{"version":1'), ("x.txt", "process   postgres")],
)
def test_a_file_is_what_its_name_says(
    migration: str, tmp_path: Path, name: str, begins: str
) -> None:
    assert main(["report", migration, "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text().startswith(begins)


def test_json_in_a_file_of_another_name(migration: str, tmp_path: Path) -> None:
    assert main(["report", migration, "--json", "-o", str(tmp_path / "x")]) == 0
    assert json.loads((tmp_path / "x").read_text())["pid"] == 4242


def test_two_forms_at_once(migration: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", migration, "--json", "--html", "x"]) == 2
    assert "--html" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["zzzz", "../..", "", "/etc/passwd"])
def test_there_is_none(migration: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", name]) == 2
    assert "no migration" in capsys.readouterr().err


def test_one_that_is_not_done(migration: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(StateDir.open())
    handle = registry.begin(pid=os.getpid(), name="x", target="y", max_downtime_s=None)
    assert main(["report", handle.id]) == 2
    assert f"phaul status {handle.id}" in capsys.readouterr().err


def test_one_that_is_damaged(migration: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry = Registry(StateDir.open())
    handle = registry.begin(pid=os.getpid(), name="x", target="y", max_downtime_s=None)
    handle.finish(b'{"pid": "x"')
    assert main(["report", handle.id]) == 3
    assert "damaged" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        show_report(REPORT, form="text", output=tmp_path)
