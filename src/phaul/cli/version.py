"""`phaul --version`: which phaul and which CRIU this is.  Runs on both hosts."""

import shutil
from collections.abc import Sequence
from typing import Final

import anyio

from phaul._version import __version__
from phaul.criu.engine import OLDEST, Engine
from phaul.criu.rpc import Request, RequestType
from phaul.errors import CriuError, CriuNotFound

__all__ = ["version_text"]

_ASK_S: Final = 5.0
"""CRIU starts and answers within 6 ms natively."""


def version_text(criu: Sequence[str] = ("criu",)) -> str:
    """The versions of phaul and of CRIU here, a line each; waits 5 s at most."""
    return f"phaul {__version__}\n{anyio.run(_criu, tuple(criu))}"


async def _criu(program: Sequence[str]) -> str:
    try:
        async with Engine(program).worker() as worker:
            with anyio.fail_after(_ASK_S):
                answer = await worker.call(Request(RequestType.VERSION, keep_open=True))
    except CriuNotFound as error:
        return f"no criu here: {error.what}; {error.remedy}"
    except (CriuError, TimeoutError) as error:
        said = str(error).replace("\n", "; ") or f"it did not answer within {_ASK_S:g} s"
        return f"criu does not say its version: {said}"
    if answer.version is None:
        return "criu does not say its version"
    where = shutil.which(program[-1]) or program[-1]
    old = "" if answer.version >= OLDEST else f", too old: at least {OLDEST} is needed"
    return f"criu {answer.version} ({where}{old})"
