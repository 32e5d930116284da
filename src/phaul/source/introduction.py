"""The first words between the two hosts.

Runs on the source, when the connection stands.
"""

from typing import Final

from phaul.errors import CriuUnusable, IncompatibleTarget
from phaul.protocol import messages as m
from phaul.protocol.handshake import OURS
from phaul.transport.caller import Caller

__all__ = ["say_hello"]

_HELLO_S: Final = 120.0
"""With what a person types to ssh."""


async def say_hello(caller: Caller, here: m.HostFacts, migration: str) -> m.Welcome:
    """Say who this is, and hear who that is.

    Raises ConnectFailed in its many kinds, VersionMismatch, and IncompatibleTarget for a host whose
    CRIU cannot be used.
    """
    hello = m.Hello(
        versions=OURS, phaul=here.phaul, host=here.host, criu=here.criu, migration=migration
    )
    try:
        return await caller.hello(hello, _HELLO_S)
    except CriuUnusable as error:
        raise IncompatibleTarget(error.what, host=error.host, remedy=error.remedy) from error
