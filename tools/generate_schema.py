"""Writes the JSON schema of what phaul prints as JSON into docs/schema.

For developers only (`python -m tools.generate_schema`); a test holds that the committed files are
up to date.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from phaul.cli.render.jsonl import Envelope
from phaul.cli.render.outcome import Checks, Outcome
from phaul.report import Report, Status

__all__ = ["SCHEMAS", "TARGET", "schema"]

TARGET = Path(__file__).parent.parent / "docs/schema"
SCHEMAS: dict[str, tuple[Any, str]] = {
    "result": (Outcome, "What `phaul migrate --json` prints"),
    "check": (Checks, "What `phaul check --json` prints"),
    "event": (Envelope, "A line of `phaul migrate --events jsonl`"),
    "status": (Status, "What `phaul status --json` prints"),
    "report": (Report, "What `phaul report --json` prints"),
}


def schema(name: str) -> str:
    """The schema `name`, as the text of its file."""
    kind, title = SCHEMAS[name]
    (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **(root if "$ref" not in root else {"$ref": root["$ref"]}),
        "$defs": dict(sorted(parts.items())),
    }
    return json.dumps(_portable(whole), indent=2) + "\n"


def _portable(value: object) -> object:
    """Without what only Python knows: the end of the text is `$` elsewhere."""
    if isinstance(value, dict):
        return {
            key: str(part).replace(r"\Z", "$") if key == "pattern" else _portable(part)
            for key, part in value.items()
        }
    return [_portable(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    """Write all files."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in SCHEMAS:
        (TARGET / f"{name}.json").write_text(schema(name), encoding="utf-8")


if __name__ == "__main__":
    main()
