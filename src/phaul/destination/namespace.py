"""An agent as PID 1 of a PID namespace of its own, which stays as the init of what it restored.

Runs on the destination, around the agent of `local:`.

    starter                       PID 1 of the new namespace
    -------                       --------------------------
    makes namespaces, forks  -->  the agent, from its first word to the last
                                  nothing lives here: ends, and the starter with its status
    ends, status 0           <--  something lives here: says so, and reaps until it is gone
    is killed                ==>  dies with it, as long as it is the agent
"""

import ctypes
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from phaul.errors import PhaulError, PreflightError

__all__ = ["run_as_init"]

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWPID: Final = 0x20000000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_PR_SET_PDEATHSIG: Final = 1

_logger = logging.getLogger("phaul")
_libc = ctypes.CDLL(None, use_errno=True)


def run_as_init(agent: Callable[[], int]) -> int:
    """Run `agent` as PID 1; returns the exit status for this process.

    Raises PreflightError if this process may not make namespaces.
    """
    _must(_libc.unshare(_CLONE_NEWPID | _CLONE_NEWNS), "no PID namespace can be made")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_init(agent, writer)
    os.close(writer)
    with open(reader, "rb") as settled:  # noqa: PTH123 -- a descriptor
        if settled.read():
            return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_init(agent: Callable[[], int], settled: int) -> NoReturn:
    """The new namespace's PID 1: if it ends, all that lives there does.  So nothing ends it."""
    status = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _prepare()
        status = agent()
    except PhaulError as error:
        _logger.error("%s", error)
        status = error.exit_code
    except BaseException:
        _logger.exception("the agent failed")
    if _children():
        with suppress(OSError):
            _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
            os.write(settled, b"stays")
            os.close(settled)
            _let_go()
        _reap()
    os._exit(status)


def _prepare() -> None:
    """Own /proc, and PIDs that keep out of the way of those that the tree brings."""
    _must(
        _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "no mount can be made private"
    )
    _must(_libc.mount(b"proc", b"/proc", b"proc", 0, None), "no /proc can be mounted")
    kernel = Path("/proc/sys/kernel")
    most = int(kernel.joinpath("pid_max").read_text())
    kernel.joinpath("ns_last_pid").write_text(str(most // 2))


def _must(result: int, what: str) -> None:
    if result:
        reason = os.strerror(ctypes.get_errno())
        raise PreflightError(f"{what}: {reason}", host="local", remedy="run phaul as root")


def _children() -> bool:
    """Whether anything but this process lives in the namespace, the dead reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _let_go() -> None:
    """Keep nothing of who started this: no stream, no directory, no terminal."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)


def _reap() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return
