"""`phaul check [TARGET]`: a line for each thing, with its remedy.

Runs on the source.
"""

import sys
from typing import Any

import anyio
import click

from phaul.cli.render.findings import checks_json, findings_text
from phaul.cli.render.look import Look
from phaul.cli.render.outcome import Checks
from phaul.cli.wishing import wish, wishing
from phaul.plan import CHECKS
from phaul.protocol.preflight import Level
from phaul.source.checking import check

__all__ = ["command"]


@click.command()
@click.argument("target", required=False)
@click.option("--pid", type=click.IntRange(1), help="Also whether this process can be moved.")
@wishing
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
@click.option("--criu", default="criu", metavar="PROGRAM", help="CRIU on this host.")
def command(
    target: str | None,
    pid: int | None,
    as_json: bool,
    criu: str,
    **options: Any,  # noqa: ANN401
) -> int:
    """See whether this machine can do it, and that one; nothing is frozen, nothing is changed.

    The exit status is 0 if nothing is in the way, 3 if something is, 5 if that host cannot take
    any process from here, 4 if it cannot be reached.
    """
    wanted = wish(target, options)

    async def run() -> int:
        found = await check(wanted.connect, wanted.wishes, pid=pid, criu=(criu,))
        codes = {CHECKS[f.check].exit_code for f in found.findings if f.level is Level.NO}
        code = max(codes, default=0)
        if as_json:
            checks = Checks(
                exit_code=code,
                source=found.source,
                destination=found.destination,
                findings=found.findings,
            )
            click.echo(checks_json(checks))
        else:
            look = Look.of(sys.stdout)
            text = findings_text(
                found.findings, look, source=found.source, destination=found.destination
            )
            click.echo(text)
        return code

    return anyio.run(run)
