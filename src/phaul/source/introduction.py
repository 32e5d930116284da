"""The first words between the two hosts.

Runs on the source, when the connection stands.
"""

from typing import Final

from phaul._version import __version__
from phaul.criu.engine import Facts
from phaul.errors import CriuUnusable, IncompatibleTarget
from phaul.protocol import messages as m
from phaul.protocol.handshake import OURS
from phaul.transport.caller import Caller

__all__ = ["criu_text", "say_hello"]

_HELLO_S: Final = 120.0
"""With what a person types to ssh."""


async def say_hello(caller: Caller, facts: Facts, host: str, migration: str) -> m.Welcome:
    """Say who this is, and hear who that is.

    Raises ConnectFailed in its many kinds, VersionMismatch, and IncompatibleTarget for a host whose
    CRIU cannot be used.
    """
    version = facts.version
    hello = m.Hello(
        versions=OURS,
        phaul=__version__,
        host=host,
        criu=m.CriuVersion(major=version.major, minor=version.minor, sublevel=version.sublevel),
        migration=migration,
    )
    try:
        return await caller.hello(hello, _HELLO_S)
    except CriuUnusable as error:
        raise IncompatibleTarget(error.what, host=error.host, remedy=error.remedy) from error


def criu_text(version: m.CriuVersion) -> str:
    """The version as a person writes it."""
    tail = f".{version.sublevel}" if version.sublevel else ""
    return f"{version.major}.{version.minor}{tail}"
