"""The committed schemas are those of the code, and what is really printed is valid by them."""

import io
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from phaul.cli.render.errors import error_json
from phaul.cli.render.findings import checks_json
from phaul.cli.render.jsonl import EventWriter
from phaul.cli.render.outcome import Checks
from phaul.cli.render.result import result_json
from phaul.cli.render.status import status_json
from phaul.errors import CriuError, UsageError
from phaul.report import Failed, Status
from tools.generate_schema import SCHEMAS, TARGET, schema
from tools.sample import FINDINGS, PLAN, REPORT, events


def validator(name: str) -> Draft202012Validator:
    found: dict[str, Any] = json.loads((TARGET / f"{name}.json").read_text())
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_schema_is_up_to_date(name: str) -> None:
    assert (TARGET / f"{name}.json").read_text() == schema(name)
    assert r"\\Z" not in schema(name)


def test_no_other_file_lies_there() -> None:
    assert {path.stem for path in TARGET.iterdir()} == set(SCHEMAS)


def test_results() -> None:
    error = CriuError("x", request="DUMP", line="l", log_path="/p", fate="f", remedy="r", host="h")
    for text in (result_json(REPORT), error_json(error, id="k3v9"), error_json(UsageError("x"))):
        validator("result").validate(json.loads(text))


def test_reports() -> None:
    validator("report").validate(json.loads(REPORT.to_json()))


def test_checks() -> None:
    for checks in (
        Checks(exit_code=0, source="alpha", findings=()),
        Checks(exit_code=0, source="alpha", destination="beta", findings=FINDINGS, plan=PLAN),
    ):
        validator("check").validate(json.loads(checks_json(checks)))


def test_events() -> None:
    raw = io.BytesIO()
    with EventWriter(raw) as writer:
        for event in events():
            writer.on_event(event)
        writer.on_event(Failed(kind="X", message="x", fate="y", exit_code=7))
    lines = raw.getvalue().splitlines()
    assert len(lines) > 50
    for line in lines:
        validator("event").validate(json.loads(line))


def test_statuses() -> None:
    status = Status()
    for event in events():
        status = status.after(event, 1000.0)
        validator("status").validate(json.loads(status_json(status)))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("result", {"outcome": "moved", "exit_code": 0}),
        ("event", {"v": 1, "time": 1.0, "event": {"event": "no-such"}}),
        ("status", {"phase": "no-such"}),
        ("check", {"exit_code": 0, "source": "a", "findings": [{"check": "x"}]}),
    ],
)
def test_what_is_wrong_is_not_valid(name: str, wrong: dict[str, object]) -> None:
    assert not validator(name).is_valid(wrong)
