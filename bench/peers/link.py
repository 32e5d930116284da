"""The link of one move: all its channels share what it carries a second.

    python3 -S -m bench.peers.link FD RATE      is the link: joins what it is sent over FD

A process of its own, like a network, so that it takes no time of those that it joins.  RATE is in
bytes a second.  Who has the other end of FD sends it two sockets to be joined (`join`), or asks how
many bytes were carried so far (`carried`).  It ends when FD does.
"""

import array
import json
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from bench.delay import Junction

__all__ = ["Line", "Link"]

_S: Final = 30.0
_JOIN: Final = b"join"
_COUNT: Final = b"count"


class Line:
    """A link's end of its control socket: what a mover needs of it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    @classmethod
    def of(cls, descriptor: str) -> "Line | None":
        """The line that was handed to this process as a word; `-` for none."""
        return None if descriptor == "-" else cls(socket.socket(fileno=int(descriptor)))

    def fileno(self) -> int:
        """The descriptor, to be handed on."""
        return self._control.fileno()

    def join(self, one: socket.socket, other: socket.socket) -> None:
        """Have two sockets joined, and close them here."""
        with one, other:
            fds = array.array("i", [one.fileno(), other.fileno()])
            self._control.sendmsg([_JOIN], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two sockets with the link between them."""
        ours, one = socket.socketpair()
        theirs, other = socket.socketpair()
        self.join(one, other)
        return ours, theirs

    def carried(self) -> tuple[int, int]:
        """The bytes that were carried so far, there and back."""
        self._control.settimeout(_S)
        self._control.send(_COUNT)
        there, back = json.loads(self._control.recv(256))
        return there, back


class Link:
    """A running link of `rate` bytes a second; a context manager, whose exit ends it."""

    def __init__(self, rate: float) -> None:
        control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "bench.peers.link", str(its.fileno()), str(rate)],
                pass_fds=[its.fileno()],
            )
        self._control = control
        self.line = Line(control)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._control.close()
        self._process.terminate()
        self._process.wait(_S)


def main() -> None:
    """Be the link."""
    control = socket.socket(fileno=int(sys.argv[1]))
    junction = Junction(rate=float(sys.argv[2]))
    while True:
        if not junction.step(control):
            continue
        message, fds, _, _ = socket.recv_fds(control, 256, 2)
        if not message:
            return
        if message == _COUNT:
            control.send(json.dumps(junction.sent).encode())
        else:
            one, other = (socket.socket(fileno=fd) for fd in fds)
            for sock in (one, other):
                os.set_inheritable(sock.fileno(), False)
            junction.add(one, other)


if __name__ == "__main__":
    main()
