"""`phaul check`: whether this host, and that one, can do it, without a migration.

Runs on the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from phaul.config import Timeouts
from phaul.criu.engine import Engine
from phaul.criu.facts import host_name
from phaul.errors import CriuUnusable, IncompatibleTarget, PhaulError
from phaul.plan import Wishes
from phaul.plan.compare import alone
from phaul.protocol.preflight import Finding, Level, Where
from phaul.source.counterpart import Counterpart
from phaul.source.introduction import say_hello
from phaul.source.preflight import Preflight
from phaul.transport.base import SourceEnd
from phaul.transport.beside import beside
from phaul.transport.caller import Caller

__all__ = ["Checked", "check"]

_LEAVE_S: Final = 20.0
_LOOK_S: Final = 1.5
"""How long the dirty rate of the process is measured at least."""


@dataclass(frozen=True)
class Checked:
    """What was found; `destination` is "" where there is none."""

    source: str
    destination: str
    findings: tuple[Finding, ...]


async def check(
    connect: Callable[[], SourceEnd] | None,
    wishes: Wishes,
    *,
    pid: int | None = None,
    criu: Sequence[str] = ("criu",),
) -> Checked:
    """Look at this host, at the process if there is one, and at the host that `connect` reaches.

    A CRIU that cannot be used is a finding.  Raises SubjectError, PeerError.
    """
    host = host_name()
    preflight = Preflight(Engine(tuple(criu), host), wishes, pid)
    try:
        await preflight.look_here()
    except CriuUnusable as unfit:
        return Checked(host, "", (*preflight.findings, _unusable(unfit, Where.SOURCE)))
    if connect is None:
        await preflight.measure(_LOOK_S)
        return Checked(host, "", (*alone(preflight.here), *preflight.findings))
    try:
        async with beside() as tasks, connect() as end:
            caller = Caller(end.control)
            welcome = await say_hello(caller, preflight.here, "check")
            tasks.start_soon(end.control.stay_alive)
            await preflight.look_there(caller, welcome)
            await preflight.measure(_LOOK_S)
            await Counterpart(caller, Timeouts()).take_leave(_LEAVE_S)
    except IncompatibleTarget as unfit:
        found = (*preflight.findings, _unusable(unfit, Where.DESTINATION))
        return Checked(host, unfit.host, found)
    return Checked(host, welcome.facts.host, preflight.findings)


def _unusable(error: PhaulError, where: Where) -> Finding:
    return Finding(check="criu", level=Level.NO, where=where, what=error.what, remedy=error.remedy)
