"""`phaul status`: how a migration stands, and how it is changed under way.  Runs on the source."""

import time
from contextlib import suppress
from typing import Final

import click

from phaul.cli.migrations import MIGRATION, exit_status, fate, plain, registry, until_over
from phaul.cli.render.status import status_json, status_of
from phaul.cli.values import parse_duration
from phaul.errors import PeerError, UsageError
from phaul.source.steering import Refused, SetMaxDowntime, Standing, Status, ask
from phaul.storage.entry import Entry, RoundFigures, State
from phaul.storage.registry import LAST, Registry

__all__ = ["command"]

_MIB: Final = 1 << 20
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

    The beginning of an ID is enough.  With --follow a line is printed for each round, and the exit
    status is that of the migration; Ctrl-C ends the following, not the migration.
    """
    wanted = [_wanted(change) for change in changes]
    known = registry()
    entry = known.find(migration)
    for request in wanted:
        _change(known, entry, request)
    if not follow:
        standing = _standing(known, entry)
        click.echo(_json(entry, standing) if as_json else _text(entry, standing))
        return 0
    try:
        return _follow(known, entry, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(f"{entry.id} goes on: `phaul cancel {entry.id}` ends it", err=True)
        return _INTERRUPTED


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
    if not as_json:
        click.echo(_head(entry))
    shown, state = -1, None
    for now in until_over(known, entry):
        entry = now
        if as_json:
            click.echo(_json(entry, None))
            continue
        for one in entry.rounds:
            if one.number > shown:
                click.echo(_round(one))
                shown = one.number
        if entry.state is not state and not entry.over:
            click.echo(entry.state.value)
        state = entry.state
    if not as_json:
        click.echo("\n".join(_end(entry)))
    return exit_status(entry)


def _json(entry: Entry, standing: Standing | None) -> str:
    return status_json(status_of(entry, time.time(), standing))


def _text(entry: Entry, standing: Standing | None) -> str:
    lines = [_head(entry), *(_round(one) for one in entry.rounds)]
    if standing is not None and standing.number is not None:
        lines.append(
            f"round {standing.number:<3} {standing.sent_bytes / _MIB:9.1f} MiB of about "
            f"{standing.expected_bytes / _MIB:.1f} MiB, for {standing.round_s:.1f} s"
        )
    if entry.over:
        return "\n".join((*lines, *_end(entry)))
    most = standing.max_downtime_s if standing is not None else entry.max_downtime_s
    tail = "" if most is None else f", downtime up to {_time(most)}"
    quiet = "" if standing is not None else " (it does not answer right now)"
    state = standing.state if standing is not None else entry.state
    return "\n".join((*lines, f"{state.value}{tail}{quiet}"))


def _head(entry: Entry) -> str:
    place = f" ({plain(entry.destination)})" if entry.destination else ""
    return f"{entry.id}: {plain(entry.name)}, PID {entry.pid}, to {plain(entry.target)}{place}"


def _round(one: RoundFigures) -> str:
    rate = one.sent_bytes / _MIB / one.seconds if one.seconds > 0 else 0.0
    line = f"round {one.number:<3} {one.sent_bytes / _MIB:9.1f} MiB {rate:8.1f} MiB/s"
    if one.dirty_rate is not None:
        line += f"   dirtied {one.dirty_rate / _MIB:.1f} MiB/s"
    if one.predicted_downtime_s is not None:
        line += f"   downtime now about {_time(one.predicted_downtime_s)}"
    return line


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _end(entry: Entry) -> list[str]:
    lines = [f"{entry.state.value}: {plain(entry.error)}" if entry.error else entry.state.value]
    if entry.state is State.UNKNOWN:
        lines.append(f"`phaul resolve {entry.id}` says what is known")
    if entry.fate or entry.state is not State.DONE:
        lines.append(fate(entry))
    return lines
