"""`phaul migrate SUBJECT TARGET`: preflight, a plan, then go; no question asked.

Runs on the source.  What moves the process is in `phaul.cli.moving`.
"""

import gc
import os
import re
from pathlib import Path
from typing import Any

import click

from phaul.cli.targets import dialled
from phaul.cli.wishing import wish, wishing
from phaul.errors import PhaulError, UsageError

__all__ = ["command", "subject_pid"]

_EVENTS = re.compile(r"jsonl(?::([0-9]{1,6}))?")


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
        pid = subject_pid(subject)
        assert wanted.connect is not None
        with dialled(wanted.connect, wanted=Path(f"/proc/{pid}").exists()) as connect:
            gc.disable()  # nothing of what is imported is garbage
            # Only now: it takes as long as ssh takes to connect.
            from phaul.cli.moving import start

            gc.enable()

            return start(
                pid,
                target,
                connect,
                wanted.wishes,
                criu,
                descriptor,
                dry_run=dry_run,
                as_json=as_json,
                verbose=verbose,
                quiet=quiet,
            )
    except PhaulError as error:
        if as_json:
            from phaul.cli.render.errors import error_json

            click.echo(error_json(error))
        raise
