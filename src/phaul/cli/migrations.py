"""The migrations of this host, as the verbs `list`, `status`, `cancel` and `resolve` take them.

Runs on the source.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem

from phaul.errors import PhaulError
from phaul.report import Report
from phaul.source import owed
from phaul.storage.aftermath import OWED
from phaul.storage.entry import Entry
from phaul.storage.registry import LAST, Registry
from phaul.storage.state_dir import StateDir
from phaul.subjects.process import Subject

__all__ = [
    "MIGRATION",
    "exit_status",
    "fate",
    "give_back_left",
    "plain",
    "registry",
    "report_of",
    "until_over",
]

_POLL_S: Final = 0.2


def registry() -> Registry:
    """The migrations of this user on this host; to look at them makes nothing.

    Raises StateError if the state directory is unsafe.
    """
    return Registry(StateDir.open(make=False))


def give_back_left(known: Registry) -> None:
    """Give back what phauls that died have left changed, and say so on standard error."""
    for directory in known.owing():
        try:
            given = owed.give_back_left(directory / OWED)
        except PhaulError as error:
            click.echo(f"{directory.name}: {plain(str(error))}", err=True)
            continue
        if given is not None and given.groups:
            click.echo(
                f"{directory.name}: its phaul died while the process was slowed down; it has "
                "its CPU time back",
                err=True,
            )
        if given is not None and given.khugepaged_ms is not None:
            click.echo(
                f"{directory.name}: its phaul died while khugepaged waited for it; it goes on, "
                f"every {given.khugepaged_ms} ms",
                err=True,
            )


def report_of(known: Registry, entry: Entry) -> Report | None:
    """The report of a migration; None if it has none, or one that cannot be read any more."""
    try:
        data = known.report(entry)
        return None if data is None else Report.from_json(data)
    except (PhaulError, msgspec.MsgspecError):
        return None


def until_over(known: Registry, entry: Entry, timeout: float | None = None) -> Iterator[Entry]:
    """The entry now, and each time that it has changed, until it is over or `timeout` is.

    A phaul that dies ends it too.  The last one given may still run only after a timeout.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    yield entry
    while not entry.over and (deadline is None or time.monotonic() < deadline):
        time.sleep(_POLL_S)
        now = known.find(entry.id)
        if now != entry:
            entry = now
            yield entry


def exit_status(entry: Entry) -> int:
    """The exit status that answers where the process is: that of the migration itself."""
    return 0 if entry.exit_code is None else entry.exit_code


def fate(entry: Entry) -> str:
    """Where the process is, as far as it is known on this host."""
    if entry.fate:
        return plain(entry.fate)
    return Subject(entry.pid, entry.name, entry.process.start).fate()


def plain(text: str) -> str:
    """The text in one line, without what a terminal would obey: names are not phaul's own."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split("\n")))


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class _Migration(_ParamType):
    name = "id"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The ids that begin so."""
        try:
            entries = registry().entries()
        except PhaulError:
            return []
        items = [
            CompletionItem(e.id, help=plain(f"{e.name} {e.pid}, {e.state.value}")) for e in entries
        ]
        items.append(CompletionItem(LAST, help="the newest"))
        return [item for item in items if item.value.startswith(incomplete)]


MIGRATION: Final = _Migration()
"""An argument's type: an id, the beginning of one, or `last`; `Registry.find` takes it."""
