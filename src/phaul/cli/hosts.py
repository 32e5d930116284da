"""`phaul hosts`: the hosts that this one may migrate to, and those that may migrate to here.

Runs on both hosts.
"""

from functools import partial

import anyio
import click

from phaul.storage.keyring import Keyring, host_name
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.join import join
from phaul.transport.tls.target import Address, KnownHost

__all__ = ["command"]


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the hosts that this one can migrate to over TLS: name, address, fingerprint."""
    if ctx.invoked_subcommand is None:
        known = Keyring().hosts()
        _table(
            [(name, str(one.address), one.certificate.fingerprint) for name, one in known.items()]
        )
        if not known:
            click.echo("no host has been added yet: phaul hosts add NAME TOKEN", err=True)


@command.command()
@click.argument("name")
@click.argument("token", nargs=-1, required=True)
@click.option("--address", metavar="HOST:PORT", help="Where it is, if not where the token says.")
def add(name: str, token: tuple[str, ...], address: str | None) -> None:
    """Join the host that printed TOKEN (`phaul serve --token`), and call it NAME."""
    invitation = Invitation.parse(" ".join(token))
    where = Address.parse(address, invitation.address.port) if address else invitation.address
    keyring = Keyring()
    there = keyring.hosts().get(name)
    if there is None or not invitation.fits(there.certificate):
        keyring.require_free(name)  # before the token is used up
    work = partial(join, invitation, keyring.identity(), host_name(), address=where)
    certificate, called = anyio.run(work)
    keyring.add_host(KnownHost(name, where, certificate))
    click.echo(f"{name} is known now, at {where}; this host is called {called} there")
    click.echo(f"migrate with: phaul migrate PID phaul://{name}", err=True)


@command.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a host that this one can migrate to."""
    Keyring().remove_host(name)
    click.echo(
        f"{name} is forgotten here; there, `phaul hosts distrust` ends its trust in this host"
    )


@command.command()
def trusted() -> None:
    """List the hosts that may migrate to here: name, fingerprint."""
    known = Keyring().trusted()
    _table([(name, certificate.fingerprint) for name, certificate in known.items()])
    if not known:
        click.echo("no host is trusted yet: phaul serve --token", err=True)


@command.command()
@click.argument("name")
def distrust(name: str) -> None:
    """Let a host migrate to here no more; what it does right now goes on."""
    Keyring().distrust(name)
    click.echo(f"{name} may not migrate to here any more")


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
