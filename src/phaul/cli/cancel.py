"""`phaul cancel`: cancel a running migration from another terminal.  Runs on the source."""

import time
from typing import Final

import click

from phaul.cli.migrations import MIGRATION, exit_status, fate, plain, registry, until_over
from phaul.cli.values import DURATION
from phaul.errors import ConnectFailed, ConnectionLost, OutcomeUnknown, PhaulError
from phaul.source.steering import Cancel, Cancelling, Refused, ask
from phaul.storage.entry import Entry, State
from phaul.storage.registry import Registry

__all__ = ["command"]

_AGAIN_S: Final = 0.1


@click.command()
@click.argument("migration", metavar="ID", type=MIGRATION)
@click.option(
    "--wait",
    type=DURATION,
    default="60s",
    show_default=True,
    help="How long to wait for its end.",
)
def command(migration: str, wait: float) -> int:
    """Cancel the migration with this ID, and wait until it is.

    The beginning of an ID is enough; `last` is the newest.  Up to the commit the process then runs
    on here as before, and nothing is left on the target.  After that it is too late, and this says
    so and waits for the end.

    The exit status answers where the process is: 130 it was cancelled and is here, 0 it is on the
    target, and so on, as for `phaul migrate`.
    """
    known = registry()
    entry = known.find(migration)
    if entry.over:
        click.echo(f"{entry.id} is over already", err=True)
        return _end(entry)
    deadline = time.monotonic() + wait
    if not _asked(known, entry, deadline):
        click.echo(f"{entry.id}: too late to cancel, it is being committed", err=True)
    for now in until_over(known, entry, deadline - time.monotonic()):
        entry = now
    if not entry.over:
        raise OutcomeUnknown(
            f"migration {entry.id} has not ended within {wait:g} s",
            remedy=f"see `phaul status {entry.id}`",
        )
    return _end(entry)


def _asked(known: Registry, entry: Entry, deadline: float) -> bool:
    """Ask for the cancel; whether there will be one, or it is over meanwhile.

    One that has only just begun may not listen yet: asked again until `deadline`.
    """
    while True:
        try:
            answer = ask(known.socket(entry), Cancel())
        except (ConnectFailed, ConnectionLost):
            if known.find(entry.id).over:
                return True
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
            continue
        match answer:
            case Cancelling(accepted=accepted):
                return accepted
            case Refused(what=what, remedy=remedy):
                raise PhaulError(plain(what), remedy=plain(remedy))
            case _:
                raise PhaulError("the migration answered something else")


def _end(entry: Entry) -> int:
    said = {State.CANCELLED: "cancelled", State.DONE: "done"}.get(entry.state)
    if said is None:
        said = f"{entry.state.value}: {plain(entry.error)}"
    if entry.state is not State.DONE or entry.fate:
        said += f"; {fate(entry)}"
    click.echo(said)
    if entry.state is State.UNKNOWN:
        click.echo(f"`phaul resolve {entry.id}` finds it", err=True)
    return exit_status(entry)
