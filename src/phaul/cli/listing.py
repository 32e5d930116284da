"""`phaul list`: the migrations of this host, running and past.  Runs on the source."""

import sys
import time
from typing import Final

import click
import msgspec

from phaul.cli.arrivals import arrival_json, arrival_text, arrived
from phaul.cli.migrations import give_back_left, plain, registry, report_of
from phaul.cli.render.look import Look
from phaul.cli.render.status import status_of
from phaul.cli.render.table import line_of, table_text
from phaul.storage.entry import Entry
from phaul.storage.registry import Registry, Scan

__all__ = ["command"]

_RECENT: Final = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all of them.")
@click.option("--all", "show_all", is_flag=True, help="Also those that ended before the last ten.")
def command(as_json: bool, show_all: bool) -> int:
    """List the migrations of this machine, running and past.

    Those that still run, or still have to be settled, are always there; of the others the last
    ten.  One whose phaul has died is "unknown".
    """
    known = registry()
    give_back_left(known)
    scan = known.scan()
    if as_json:
        click.echo(_json(scan))
        return 0
    entries = scan.entries if show_all else _recent(scan.entries)
    if entries:
        click.echo(_table(known, entries))
    if hidden := len(scan.entries) - len(entries):
        click.echo(f"{hidden} older not shown: `phaul list --all`", err=True)
    here = arrived()
    if here:
        click.echo("\n".join(["", "came here:"] if entries else ["came here:"]))
    for arrival in here:
        click.echo(arrival_text(arrival))
    if not scan.entries and not here:
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
        {
            "version": 1,
            "migrations": scan.entries,
            "incoming": [arrival_json(arrival) for arrival in arrived()],
            "damaged": damaged,
        }
    ).decode()


def _table(known: Registry, entries: tuple[Entry, ...]) -> str:
    now = time.time()
    lines = [line_of(status_of(entry, now, report=report_of(known, entry))) for entry in entries]
    return table_text(lines, Look.of(sys.stdout))
