"""`phaul migrate SUBJECT TARGET`: preflight, a plan, then go; no question asked.

Runs on the source.
"""

import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import click

from phaul.cli.render.errors import error_json, error_text
from phaul.cli.render.findings import checks_json
from phaul.cli.render.jsonl import EventWriter
from phaul.cli.render.look import Look
from phaul.cli.render.outcome import Checks
from phaul.cli.render.plan import plan_text
from phaul.cli.render.progress import make_progress
from phaul.cli.render.result import result_json, result_text
from phaul.cli.running import Running
from phaul.cli.wishing import Wish, wish, wishing
from phaul.criu.facts import host_name
from phaul.errors import PhaulError, UsageError
from phaul.report import Report
from phaul.source.migration import Order
from phaul.storage.registry import Handle, Registry
from phaul.storage.state_dir import StateDir
from phaul.subjects.process import examine

__all__ = ["command", "start", "subject_pid"]

_EVENTS = re.compile(r"jsonl(?::([0-9]{1,6}))?")
_KEPT = 200
"""So many past migrations are remembered."""


def subject_pid(text: str) -> int:
    """The PID that SUBJECT means; raises UsageError."""
    if re.fullmatch(r"[0-9]{1,10}", text):
        return int(text)
    kind, colon, _name = text.partition(":")
    if colon and kind in {"runc", "podman", "lxc"}:
        raise UsageError(
            f"{text!a}: containers are not moved by their names yet",
            remedy="give the PID of its init, as the engine's inspect shows it",
        )
    raise UsageError(f"{text!a} is no PID", remedy="give one as `ps` shows it")


def event_descriptor(text: str | None) -> int | None:
    """Where `--events` go: jsonl is standard output, jsonl:FD that descriptor."""
    if text is None:
        return None
    found = _EVENTS.fullmatch(text)
    if found is None:
        raise UsageError(f"--events {text!a}", remedy="write jsonl, or jsonl:FD")
    descriptor = int(found[1] or 1)
    try:
        os.fstat(descriptor)
    except OSError as error:
        raise UsageError(f"--events {text}: descriptor {descriptor} is not open") from error
    return descriptor


@click.command()
@click.argument("subject")
@click.argument("target")
@click.option("-n", "--dry-run", is_flag=True, help="Preflight and plan; freeze nothing.")
@wishing
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option("--events", metavar="jsonl[:FD]", help="Each event as a line of JSON, to FD (1).")
@click.option("-v", "--verbose", count=True, help="More of what is going on; twice for CRIU's.")
@click.option("-q", "--quiet", is_flag=True, help="Only the result, or the error.")
@click.option("--criu", default="criu", metavar="PROGRAM", help="CRIU on this host.")
def command(
    subject: str,
    target: str,
    dry_run: bool,
    as_json: bool,
    events: str | None,
    verbose: int,
    quiet: bool,
    criu: str,
    **options: Any,  # noqa: ANN401
) -> int:
    """Move a process and all below it to another machine while it runs.

    SUBJECT is its PID.  TARGET is user@host, ssh://user@host:port, phaul://host:port, a host of the
    configuration, or local: for another PID namespace on this machine.

    Ctrl-C cancels: the process then runs on here, and nothing is left over there.
    """
    descriptor = event_descriptor(events)
    if as_json and descriptor == 1:
        raise UsageError(
            "--json and --events would both write to standard output",
            remedy="give the events another descriptor: --events jsonl:3 3>FILE",
        )
    try:
        wanted = wish(target, options)
        return start(
            subject_pid(subject),
            target,
            wanted,
            criu,
            descriptor,
            dry_run=dry_run,
            as_json=as_json,
            verbose=verbose,
            quiet=quiet,
        )
    except PhaulError as error:
        if as_json:
            click.echo(error_json(error))
        raise


def start(
    pid: int,
    target: str,
    wanted: Wish,
    criu: str,
    events: int | None = None,
    *,
    dry_run: bool = False,
    as_json: bool = False,
    verbose: int = 0,
    quiet: bool = False,
) -> int:
    """Migrate process `pid`, as a new entry of this host; returns the exit status."""
    assert wanted.connect is not None
    name = examine(pid, host_name()).name
    with ExitStack() as stack:
        handle: Handle | None = None
        if dry_run:  # of which nothing is written down
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="phaul-dry-run-")))
        else:
            registry = Registry(StateDir.open())
            handle = registry.begin(
                pid=pid, name=name, target=target, max_downtime_s=wanted.wishes.max_downtime_s
            )
            directory = handle.directory
            registry.prune(_KEPT)
        order = Order(
            id=handle.id if handle else "dry-run",
            pid=pid,
            target=target,
            connect=wanted.connect,
            wishes=wanted.wishes,
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
