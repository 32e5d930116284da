"""`phaul resolve`: what is known of a migration that was torn apart.  Runs on the source.

It settles nothing by itself: it says what this host knows, and what a person can type to look.
"""

import shlex

import click

from phaul.cli.migrations import MIGRATION, fate, plain, registry
from phaul.errors import OutcomeUnknown, UsageError
from phaul.storage.entry import Entry, State
from phaul.subjects.process import Subject
from phaul.transport.target import Target

__all__ = ["command"]


@click.command()
@click.argument("migration", metavar="ID", type=MIGRATION)
def command(migration: str) -> int:
    """Say what is known of a migration whose outcome is unknown, and what to type to look.

    Nothing is changed on either machine.  Exit status: 0 nothing is to be settled, 8 unknown.
    """
    entry = registry().find(migration)
    if not entry.over:
        raise UsageError(
            f"migration {entry.id} is still under way ({entry.state.value})",
            remedy=f"`phaul status {entry.id}` shows it, `phaul cancel {entry.id}` ends it",
        )
    if entry.state is not State.UNKNOWN:
        where = f": {fate(entry)}" if entry.fate or entry.state is not State.DONE else ""
        click.echo(f"nothing to settle, {entry.id} is {entry.state.value}{where}")
        return 0
    click.echo("\n".join(_known(entry)))
    return OutcomeUnknown.exit_code


def _known(entry: Entry) -> list[str]:
    here = Subject(entry.pid, entry.name, entry.process.start)
    there = plain(entry.destination or entry.target)
    return [
        f"{entry.id}: {plain(entry.name)}, PID {entry.pid}, to {plain(entry.target)}: unknown",
        plain(entry.error),
        f"here   {here.fate()}",
        f"there  {_there(entry, there)}",
        "Look at both before you do anything; no more than one may run:",
        f"  here   ps -o pid,stat,lstart,args -p {entry.pid}",
        f"  there  {_look(entry)}",
        *_images(entry),
        "phaul settles nothing by itself here, and has changed nothing.",
    ]


def _there(entry: Entry, there: str) -> str:
    match entry.died_in:
        case State.CONNECTING | State.PREFLIGHT | State.PRE_COPY:
            return f"no copy was begun on {there}: the cutover had not come"
        case _:
            return (
                f"a copy may stand or run on {there}, with PID {entry.destination_pid or entry.pid}"
            )


def _images(entry: Entry) -> list[str]:
    """Where a process that runs nowhere can be restored from."""
    if entry.died_in in {State.CONNECTING, State.PREFLIGHT, State.PRE_COPY}:
        return []
    kept = f"/var/lib/phaul/incoming/{entry.id}-*/images"
    return [
        "If it runs nowhere, it is restored from the images that were kept there; the last one has",
        "all of it, its parents included:",
        f"  there  {_over_there(entry, f'ls -d {kept}/*')}",
        f"  there  {_over_there(entry, f'criu restore -d -D {kept}/LAST')}",
    ]


def _look(entry: Entry) -> str:
    return _over_there(entry, f"ps -o pid,stat,lstart,args -p {entry.destination_pid or entry.pid}")


def _over_there(entry: Entry, command: str) -> str:
    """What to type for it."""
    try:
        target = str(Target.parse(entry.target))
    except UsageError:
        # The name of a host in the configuration, or one that is not reached by ssh.
        return f"on {plain(entry.destination or entry.target)}: {command}"
    return f"ssh {shlex.quote(target)} {command}"
