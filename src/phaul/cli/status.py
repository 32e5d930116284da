"""`phaul status`: how a migration stands, and how it is changed under way.  Runs on the source."""

import sys
import time
from contextlib import suppress
from typing import Final

import click
import msgspec

from phaul.cli.arrivals import arrival_json, arrival_text, arrived
from phaul.cli.migrations import (
    MIGRATION,
    exit_status,
    fate,
    give_back_left,
    plain,
    registry,
    report_of,
    until_over,
)
from phaul.cli.render.look import Look
from phaul.cli.render.result import round_text
from phaul.cli.render.status import status_json, status_of, status_text
from phaul.cli.values import parse_duration
from phaul.destination.incoming import Arrival
from phaul.errors import PeerError, UsageError
from phaul.report.status import Status as Shown
from phaul.source.steering import Refused, SetMaxDowntime, Standing, Status, ask
from phaul.storage.entry import Entry, State
from phaul.storage.registry import LAST, Registry

__all__ = ["command"]

_ASK_S: Final = 2.0
_INTERRUPTED: Final = 130


@click.command()
@click.argument("migration", metavar="[ID]", type=MIGRATION, default=LAST)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --follow, one a line.")
@click.option(
    "--set",
    "changes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Change a running migration: max-downtime=1s.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until it is over; ends with its status.")
def command(migration: str, as_json: bool, changes: tuple[str, ...], follow: bool) -> int:
    """Show how a migration stands: the one with this ID, or the last one.

    Also of one that came here from another machine, by its ID.

    The beginning of an ID is enough.  With --follow a line is printed for each round, and the exit
    status is that of the migration; Ctrl-C ends the following, not the migration.
    """
    wanted = [_wanted(change) for change in changes]
    known = registry()
    give_back_left(known)
    try:
        entry = known.find(migration)
    except UsageError:
        if wanted or not (here := arrived("" if migration == LAST else migration)):
            raise
        click.echo(_json(here[0]) if as_json else arrival_text(here[0]))
        return 0
    for request in wanted:
        _change(known, entry, request)
    if not follow:
        standing = _standing(known, entry)
        if as_json:
            click.echo(status_json(_status(known, entry, standing)))
        else:
            click.echo(_text(known, entry, standing))
        return 0
    try:
        return _follow(known, entry, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(f"{entry.id} goes on: `phaul cancel {entry.id}` ends it", err=True)
        return _INTERRUPTED


def _json(arrival: Arrival) -> str:
    return msgspec.json.encode({"v": 1, "incoming": arrival_json(arrival)}).decode()


def _wanted(change: str) -> SetMaxDowntime:
    name, equals, value = change.partition("=")
    if not equals or name != "max-downtime":
        raise UsageError(f"--set {change!a}: nothing of that name can be changed", remedy=_REMEDY)
    try:
        return SetMaxDowntime(seconds=parse_duration(value))
    except ValueError as error:
        raise UsageError(f"--set {change!a}: {error}", remedy=_REMEDY) from error


_REMEDY: Final = "write --set max-downtime=1s"


def _change(known: Registry, entry: Entry, request: SetMaxDowntime) -> None:
    if entry.over:
        raise UsageError(
            f"migration {entry.id} is over ({entry.state.value}): nothing is left to change"
        )
    answer = ask(known.socket(entry), request)
    if isinstance(answer, Refused):
        raise UsageError(plain(answer.what), remedy=plain(answer.remedy))


def _standing(known: Registry, entry: Entry) -> Standing | None:
    """What the running phaul says; None if it is over, or does not answer."""
    if entry.over:
        return None
    with suppress(PeerError):
        answer = ask(known.socket(entry), Status(), _ASK_S)
        if isinstance(answer, Standing):
            return answer
    return None


def _follow(known: Registry, entry: Entry, *, as_json: bool) -> int:
    shown = 0
    for now in until_over(known, entry):
        entry = now
        status = _status(known, entry, None)
        if as_json:
            click.echo(status_json(status))
            continue
        for done in status.rounds[shown:]:
            click.echo(f"round {done.number:<3} {round_text(done)}")
        shown = len(status.rounds)
    if not as_json:
        click.echo(_text(known, entry, None, most_rounds=0))
    return exit_status(entry)


def _status(known: Registry, entry: Entry, standing: Standing | None) -> Shown:
    status = status_of(entry, time.time(), standing, report_of(known, entry))
    return msgspec.structs.replace(status, fate=fate(entry)) if entry.over else status


def _text(known: Registry, entry: Entry, standing: Standing | None, *, most_rounds: int = 5) -> str:
    status, look = _status(known, entry, standing), Look.of(sys.stdout)
    lines = [status_text(status, time.time(), look, most_rounds=most_rounds)]
    if entry.state is State.UNKNOWN:
        lines.append(f"`phaul resolve {entry.id}` finds it")
    elif not entry.over and standing is None:
        lines.append("(it does not answer right now)")
    return "\n".join(lines)
