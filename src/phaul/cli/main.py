"""The verbs of `phaul`, each loaded when it is asked for, and what becomes of an error.

Runs on both hosts.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from phaul.errors import PhaulError

__all__ = ["VERBS", "main", "phaul"]

VERBS: Final[dict[str, str]] = {
    "check": "can this machine, and that one, do it?",
    "migrate": "move a process to another machine while it runs",
    "list": "migrations of this machine, running and past",
    "status": "how a migration stands; change it under way",
    "cancel": "cancel a migration before its cutover",
    "resolve": "settle a migration that was torn apart",
    "report": "the report of a migration, as text, JSON or a page",
    "serve": "take processes over TLS, without ssh",
    "hosts": "the hosts that are known, and their keys",
    "demo": "see it work on this machine",
    "completion": "completion for your shell",
}
"""In the order in which they are listed; each is `command` of the module `phaul.cli.VERB`."""


class _Verbs(click.Group):
    """Loads the module of a verb when the verb is used: to list them, none is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        name = f"phaul.cli.{cmd_name}" if cmd_name != "list" else "phaul.cli.listing"
        command: click.Command = importlib.import_module(name).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from phaul.cli.version import version_text

        click.echo(version_text())
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="The versions of phaul and of CRIU here.",
)
def phaul() -> None:
    """Move running processes to another machine while they keep running."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status, which answers "where is my process?"."""
    try:
        result: Any = phaul.main(arguments, prog_name="phaul", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Abort:
        return 130
    except PhaulError as error:
        from phaul.cli.render.errors import error_text
        from phaul.cli.render.look import Look

        click.echo(error_text(error, Look.of(sys.stderr)), err=True)
        return error.exit_code
    return result if isinstance(result, int) else 0
