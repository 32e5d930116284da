"""`phaul list`: the migrations of this host, running and past.  Runs on the source."""

import time
from typing import Final

import click
import msgspec

from phaul.cli.migrations import plain, registry
from phaul.storage.entry import Entry
from phaul.storage.registry import Scan

__all__ = ["command"]

_RECENT: Final = 10
_HEAD: Final = ("ID", "STATE", "PID", "NAME", "TARGET", "STARTED", "ROUNDS")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all of them.")
@click.option("--all", "show_all", is_flag=True, help="Also those that ended before the last ten.")
def command(as_json: bool, show_all: bool) -> int:
    """List the migrations of this machine, running and past.

    Those that still run, or still have to be settled, are always there; of the others the last
    ten.  One whose phaul has died is "unknown".
    """
    scan = registry().scan()
    if as_json:
        click.echo(_json(scan))
        return 0
    entries = scan.entries if show_all else _recent(scan.entries)
    if entries:
        click.echo(_table(entries))
    if hidden := len(scan.entries) - len(entries):
        click.echo(f"{hidden} older not shown: `phaul list --all`", err=True)
    if not scan.entries:
        click.echo("no migrations on this machine yet", err=True)
    for broken in scan.damaged:
        click.echo(f"{broken.id}: its entry is damaged: {plain(broken.why)}", err=True)
    return 0


def _recent(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    newest = {entry.id for entry in [e for e in entries if e.disposable][:_RECENT]}
    return tuple(entry for entry in entries if not entry.disposable or entry.id in newest)


def _json(scan: Scan) -> str:
    damaged = [{"id": broken.id, "why": broken.why} for broken in scan.damaged]
    return msgspec.json.encode(
        {"version": 1, "migrations": scan.entries, "damaged": damaged}
    ).decode()


def _table(entries: tuple[Entry, ...]) -> str:
    rows = [_HEAD, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(entry: Entry) -> tuple[str, ...]:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.started_unix))
    return (
        entry.id,
        entry.state.value,
        str(entry.pid),
        plain(entry.name),
        plain(entry.target),
        started,
        str(entry.rounds[-1].number + 1) if entry.rounds else "0",
    )
