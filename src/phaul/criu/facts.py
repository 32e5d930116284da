"""What this host is: the facts that each end says of itself.

Used in the handshake and in preflight, on both hosts.
"""

import os
import re
from typing import Final

from phaul._version import __version__
from phaul.criu.engine import Engine, Facts
from phaul.criu.workers import Workers
from phaul.protocol.messages import CriuVersion, HostFacts

__all__ = ["host_facts", "host_name", "make_facts"]

_MOST_NAME: Final = 253
_MOST_WORD: Final = 64
_MOST_VERSION: Final = (999, 999, 99_999)


def host_name() -> str:
    """This host's name, as it may stand in a message."""
    return _host_name(os.uname().nodename)


async def host_facts(
    engine: Engine, facts: Facts | None = None, *, restore_rate: int = 1
) -> HostFacts:
    """The facts of this host; `facts` are those of its CRIU, which is examined if they are None.

    `restore_rate` matters for a destination only.

    Raises CriuNotFound, CriuTooOld, CriuUnfit, CriuError, as `Engine.examine` does.
    """
    if facts is None:
        async with Workers(engine) as workers:
            facts = await workers.examine()
    system = os.uname()
    return make_facts(
        facts, system.nodename, system.release, system.machine, restore_rate=restore_rate
    )


def make_facts(
    facts: Facts, name: str, kernel: str, machine: str, *, restore_rate: int = 1
) -> HostFacts:
    """The facts, made to fit their message: a host may have any name, and must not be refused."""
    version = facts.version
    numbers = (version.major, version.minor, version.sublevel)
    major, minor, sublevel = (
        min(max(number, 0), most) for number, most in zip(numbers, _MOST_VERSION, strict=True)
    )
    return HostFacts(
        host=_host_name(name),
        phaul=__version__,
        criu=CriuVersion(major=major, minor=minor, sublevel=sublevel),
        kernel=_word(kernel),
        machine=_word(machine),
        mem_track=facts.mem_track,
        lazy_pages=facts.lazy_pages,
        restore_rate=restore_rate,
    )


def _host_name(name: str) -> str:
    """The name with what no host name has left out."""
    name = re.sub(r"[^A-Za-z0-9_.:-]+", "-", name).lstrip(".:-")
    return name[:_MOST_NAME] or "unnamed"


def _word(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_WORD])
