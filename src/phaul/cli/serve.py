"""`phaul serve`: the daemon that takes processes over TLS.  Runs on the destination."""

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import click

from phaul.errors import PreflightError, UsageError
from phaul.storage.keyring import Keyring, host_name
from phaul.transport.systemd import notify, passed_sockets
from phaul.transport.tls.daemon import Daemon
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.target import DEFAULT_PORT, Address

__all__ = ["command", "require_trust", "seconds"]

_BACKLOG: Final = 64
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
# Of TEST-NET-1 (RFC 5737).  To connect a datagram socket to it only asks the routing table.
_SOMEWHERE: Final = ("192.0.2.1", 9)


@click.command()
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help=f"Where to listen; by default at every address, port {DEFAULT_PORT}.",
)
@click.option("--token", is_flag=True, help="Print a token that lets one host join.")
@click.option("--expires", default="10m", show_default=True, help="How long the token is good.")
@click.option(
    "--address", metavar="HOST[:PORT]", help="How the other host reaches this one; for the token."
)
@click.option("--once", is_flag=True, help="End after one migration.")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="Where incoming images are kept."
)
@click.option("--criu", metavar="PROGRAM", help="The CRIU to use.")
def command(
    listen: str | None,
    token: bool,
    expires: str,
    address: str | None,
    once: bool,
    directory: Path | None,
    criu: str | None,
) -> None:
    """Take processes that other hosts migrate to here, over TLS and without ssh.

    A host that wants to must have joined: `--token` prints what lets one in.
    """
    logging.basicConfig(format="phaul serve: %(message)s", level=logging.INFO, stream=sys.stderr)
    lifetime = seconds(expires)
    keyring = Keyring()
    identity = keyring.identity()
    agent = [sys.executable, "-P", "-m", "phaul", "agent"]
    agent += ["--directory", str(directory.absolute())] if directory else []
    agent += ["--criu", criu] if criu else []
    listeners = _listeners(listen)
    try:
        require_trust(listeners, keyring, token=token)
        where = _reached(address, listeners[0]) if token else None
        environment = {**os.environ, "PHAUL_STATE": str(keyring.path)}
        environment.pop("NOTIFY_SOCKET", None)
        daemon = Daemon(listeners, agent, environment, once=once)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    secret = keyring.admission.issue(lifetime) if where is not None else None

    def ready() -> None:
        for listener in listeners:
            logging.getLogger("phaul.serve").info("listening at %s", _bound(listener))
        if where is not None and secret is not None:
            click.echo(str(Invitation.to(identity.certificate, secret, where)))
            click.echo(
                f"on the other host: phaul hosts add {host_name()} TOKEN   (good for {expires}, "
                "for one host)",
                err=True,
            )
        notify("READY=1", os.environ)

    try:
        anyio.run(partial(daemon.run, ready))
        notify("STOPPING=1", os.environ)
    finally:
        if secret is not None:
            keyring.admission.withdraw(secret)


def require_trust(listeners: Sequence[socket.socket], keyring: Keyring, *, token: bool) -> None:
    """Raise UsageError if others could connect but none of them may come in."""
    if token or keyring.trusted() or all(_is_loopback(one) for one in listeners):
        return
    raise UsageError(
        "no host is trusted yet: nobody could come in from another one",
        remedy="let one join with `phaul serve --token`, or listen at 127.0.0.1",
    )


def seconds(text: str) -> float:
    """A time in `90`, `90s`, `10m` or `2h`; raises UsageError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdecimal() or len(number) > 6 or int(number) == 0:
        raise UsageError(f"{text[:40]!a} is not a time", remedy="write 90s, 10m or 2h")
    return int(number) * _UNITS[unit]


def _listeners(listen: str | None) -> list[socket.socket]:
    passed = [one.sock for one in passed_sockets(os.environ)]
    if passed and listen is None:
        return passed
    for sock in passed:
        sock.close()
    if passed:
        raise UsageError(
            "systemd passed sockets, and --listen names another",
            remedy="change the .socket unit instead, or leave --listen out",
        )
    if listen is None:
        return [_everywhere()]
    address = Address.parse(listen)
    try:
        ipaddress.ip_address(address.host.partition("%")[0])
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{address.host} is not an address of this host", remedy="write ADDRESS:PORT"
        ) from error
    return [_listener(found[0][0], found[0][4])]


def _everywhere() -> socket.socket:
    """At every address, of both kinds where there are both."""
    try:
        return _listener(socket.AF_INET6, ("::", DEFAULT_PORT))
    except OSError:
        return _listener(socket.AF_INET, ("0.0.0.0", DEFAULT_PORT))


def _listener(family: int, where: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise PreflightError(
            f"cannot listen at {Address(str(where[0]), int(str(where[1])))}: {error.strerror}",
            remedy="see what listens there: ss -ltnp; or choose another with --listen",
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _reached(given: str | None, listener: socket.socket) -> Address:
    """Where the other host finds this one; a guess where nobody says."""
    bound = _bound(listener)
    if given is not None:
        return Address.parse(given, bound.port)
    if not ipaddress.ip_address(bound.host.partition("%")[0]).is_unspecified:
        return bound
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_SOMEWHERE)
            return Address(sock.getsockname()[0], bound.port)
        except OSError:
            return Address(host_name(), bound.port)


def _bound(listener: socket.socket) -> Address:
    host, port, *_ = listener.getsockname()
    return Address(host, port)


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(_bound(listener).host.partition("%")[0]).is_loopback
