"""Runs the migration that `phaul migrate` was asked for, as a new entry of this host.

Used on the source.  It is loaded when the arguments are known to be right: `phaul.cli.migrate` has
ssh connect meanwhile.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TextIO

import click

from phaul.cli.migrations import give_back_left
from phaul.cli.render.errors import error_json, error_text
from phaul.cli.render.findings import checks_json
from phaul.cli.render.jsonl import EventWriter
from phaul.cli.render.look import Look
from phaul.cli.render.outcome import Checks
from phaul.cli.render.plan import plan_text
from phaul.cli.render.progress import make_progress
from phaul.cli.render.result import result_json, result_text
from phaul.cli.running import Running
from phaul.criu.facts import host_name
from phaul.errors import PhaulError
from phaul.plan import Wishes
from phaul.report import Report
from phaul.source.migration import Order
from phaul.storage.registry import Handle, Registry
from phaul.storage.state_dir import StateDir
from phaul.subjects.process import examine
from phaul.transport.base import SourceEnd

__all__ = ["start"]

_KEPT: Final = 200
"""So many past migrations are remembered."""


def start(
    pid: int,
    target: str,
    connect: Callable[[], SourceEnd],
    wishes: Wishes,
    criu: str,
    events: int | None = None,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    verbose: int = 0,
    quiet: bool = False,
) -> int:
    """Migrate process `pid`, as a new entry of this host; returns the exit status."""
    name = examine(pid, host_name()).name
    with ExitStack() as stack:
        handle: Handle | None = None
        if dry_run:  # of which nothing is written down
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="phaul-dry-run-")))
        else:
            registry = Registry(StateDir.open())
            handle = registry.begin(
                pid=pid, name=name, target=target, max_downtime_s=wishes.max_downtime_s
            )
            directory = handle.directory
            registry.prune(_KEPT)
            give_back_left(registry)
        order = Order(
            id=handle.id if handle else "dry-run",
            pid=pid,
            target=target,
            connect=connect,
            wishes=wishes,
            directory=directory,
            criu=(criu,),
            dry_run=dry_run,
        )
        return _go(order, handle, events, as_json=as_json, verbose=verbose, quiet=quiet)


def _go(
    order: Order,
    handle: Handle | None,
    events: int | None = None,
    *,
    as_json: bool = False,
    verbose: int = 0,
    quiet: bool = False,
    errors: TextIO | None = None,
) -> int:
    """Run the migration and say how it went; returns the exit status."""
    errors = errors or sys.stderr
    failed: PhaulError | None = None
    report: Report | None = None
    with ExitStack() as stack:
        progress = stack.enter_context(make_progress(errors, quiet=quiet, verbose=verbose))
        writers = [stack.enter_context(EventWriter(events))] if events is not None else []
        running = Running(order, handle, progress, [writer.on_event for writer in writers])
        try:
            report = running.run()
        except PhaulError as error:
            failed = error
    look = Look.of(sys.stdout)
    if failed is not None:
        if as_json:
            click.echo(error_json(failed, id=order.id))
        click.echo(error_text(failed, Look.of(errors)), file=errors)
    elif report is not None:
        click.echo(result_json(report, running.exit_code) if as_json else result_text(report, look))
    else:
        _say_plan(running, as_json=as_json, look=look)
    return running.exit_code


def _say_plan(running: Running, *, as_json: bool, look: Look) -> None:
    plan = running.migration.plan
    assert plan is not None
    if as_json:
        checks = Checks(
            exit_code=0,
            source=host_name(),
            destination=running.migration.peer,
            findings=running.migration.findings,
            plan=plan,
        )
        click.echo(checks_json(checks))
    else:
        click.echo(plan_text(plan, look, everything=True))
