"""`phaul report ID`: the report of a migration that is done, as text, JSON or a page.

Runs on the source, at any time afterwards.
"""

import sys
from pathlib import Path
from typing import Literal

import click
import msgspec

from phaul.cli.render.look import Look
from phaul.cli.render.result import report_text
from phaul.errors import StateError, UsageError
from phaul.report import Report
from phaul.storage.registry import Registry
from phaul.storage.state_dir import StateDir

__all__ = ["Form", "command", "show_report", "stored_report"]

Form = Literal["text", "json", "html"]
_FORMS: dict[str, Form] = {".json": "json", ".html": "html", ".htm": "html"}


def show_report(report: Report, *, form: Form, output: Path | None) -> None:
    """Write `report` to the file `output`, or to stdout; raises UsageError if it cannot be.

    In a file, text is not folded and has no colours.
    """
    if output is None:
        sys.stdout.write(_rendered(report, form, Look.of(sys.stdout)))
        sys.stdout.flush()
        return
    try:
        output.write_text(_rendered(report, form, Look()), encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written: {error.strerror}", remedy="name another file"
        ) from error


def stored_report(name: str) -> Report:
    """The report of the migration with this id, its beginning, or "last".

    Raises UsageError if there is none, StateError if it is damaged.
    """
    registry = Registry(StateDir.open(make=False))
    entry = registry.find(name)
    data = registry.report(entry)
    if data is None:
        raise UsageError(
            f"migration {entry.id} has no report: it is {entry.state.value}",
            remedy=f"see `phaul status {entry.id}`",
        )
    try:
        return Report.from_json(data)
    except msgspec.DecodeError as error:
        raise StateError(f"the report of migration {entry.id} is damaged: {error}") from error


@click.command("report", short_help="the report of a migration, as text, JSON or a page")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--html", "page", metavar="FILE", help="One HTML page in FILE; - is stdout.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to FILE: JSON or a page if it is named so (.json, .html), else text.",
)
def command(name: str, as_json: bool, page: str | None, output: Path | None) -> None:
    """Show the report of a migration: its id, the beginning of it, or "last"."""
    if page is not None and (as_json or output is not None):
        raise UsageError("--html has a file of its own: it goes with neither --json nor -o")
    report = stored_report(name)
    if page is not None:
        show_report(report, form="html", output=None if page == "-" else Path(page))
        return
    named: Form = _FORMS.get(output.suffix.lower(), "text") if output else "text"
    show_report(report, form="json" if as_json else named, output=output)


def _rendered(report: Report, form: Form, look: Look) -> str:
    if form == "json":
        return report.to_json().decode() + "\n"
    if form == "html":
        from phaul.report.html import page

        return page(report)
    return report_text(report, look) + "\n"
