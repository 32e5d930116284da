"""What systemd hands to a service, and what a service tells it: sockets, and readiness.

Used by `phaul serve`.  The protocols are those of sd_listen_fds(3) and sd_notify(3).
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final, NamedTuple

from phaul.errors import UsageError

__all__ = ["FIRST", "Passed", "notify", "passed_sockets"]

FIRST: Final = 3
"""The number of the first descriptor that is passed."""

_MOST: Final = 64


class Passed(NamedTuple):
    """A socket that was passed, and its name there (FileDescriptorName=)."""

    name: str
    sock: socket.socket


def passed_sockets(environment: MutableMapping[str, str], first: int = FIRST) -> list[Passed]:
    """The listening sockets that were passed to this process; none without systemd.

    They are the caller's, non-blocking, and will not be inherited.  The variables are removed, so
    that no child takes them for its own.  Raises UsageError for a descriptor that is no listening
    stream socket, with all of them closed.
    """
    taken = {name: environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS")}
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if taken["LISTEN_PID"] != str(os.getpid()) or not taken["LISTEN_FDS"].isdecimal():
        return []
    count = int(taken["LISTEN_FDS"])
    if count > _MOST:
        raise UsageError(f"systemd passed {count} sockets, {_MOST} at most can be meant")
    names += [""] * (count - len(names))
    passed: list[Passed] = []
    try:
        for number, name in zip(range(first, first + count), names, strict=False):
            passed.append(Passed(name, _listening(number, name)))
    except BaseException:
        for one in passed:
            one.sock.close()
        raise
    return passed


def notify(state: str, environment: MutableMapping[str, str]) -> bool:
    """Tell systemd the state ("READY=1"); returns whether there was somebody to tell."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
        return True
    return False


def _listening(number: int, name: str) -> socket.socket:
    what = f"descriptor {number} that systemd passed" + (f" ({name})" if name else "")
    try:
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise UsageError(f"{what} is not a socket", remedy="see the .socket unit") from error
    internet = sock.family in {socket.AF_INET, socket.AF_INET6}
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.type != socket.SOCK_STREAM or not internet or not listens:
        sock.close()
        raise UsageError(
            f"{what} is not a listening TCP socket",
            remedy="the .socket unit needs ListenStream= with a port, and Accept=no",
        )
    sock.setblocking(False)
    return sock
