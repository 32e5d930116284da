"""Moves bytes between a unix socket and a network socket, counts them, and limits or packs them.

Used on both hosts, from the first round to the end of the cutover.  CRIU frozen on a TCP socket
costs 220 ms more in every dump than on a unix socket pair, so CRIU gets a pair and this stands
beside it: two threads, one a direction, since the page server answers.

    source                                             destination
    CRIU --near--> splice or pack --far--> network --far--> splice or unpack --near--> CRIU
    CRIU <-------- splice         <------- network <------- splice           <-------- CRIU
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from phaul.errors import MemoryChannelError
from phaul.pages import pump
from phaul.pages.bandwidth import Bandwidth
from phaul.pages.frames import Compression, FrameError
from phaul.pages.pump import Moved

__all__ = ["Relay"]

_JOIN_S: Final = 10.0


class Relay:
    """Joins two connected stream sockets, which it owns from now on, until `close`.

    What goes from `near` to `far` is limited by `bandwidth`, and framed unless `compression` is
    NONE; what comes from `far` is in frames if `framed`.
    """

    def __init__(
        self,
        near: socket.socket,
        far: socket.socket,
        *,
        bandwidth: Bandwidth | None = None,
        compression: Compression = Compression.NONE,
        framed: bool = False,
    ) -> None:
        near.setblocking(True)
        far.setblocking(True)
        self._near = near
        self._far = far
        self.bandwidth = bandwidth or Bandwidth()
        self._compression = compression
        self._framed = framed
        self._out, self._in = Moved(), Moved()
        self._error: Exception | None = None
        self._threads = [
            threading.Thread(
                target=self._run, args=(move, target), name=f"phaul-relay-{way}", daemon=True
            )
            for way, move, target in (
                ("out", self._move_out, far),
                ("in", self._move_in, near),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """The bytes that went out to `far`."""
        return self._out.wire

    @property
    def received(self) -> int:
        """The bytes that came in from `far`."""
        return self._in.wire

    @property
    def memory_bytes(self) -> int:
        """The bytes that crossed `near`, both ways: what was moved, before it was compressed."""
        return self._out.memory + self._in.memory

    def check(self) -> None:
        """Raise MemoryChannelError if the network side has failed."""
        error = self._error
        if error is not None:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise MemoryChannelError(f"the memory channel broke: {why}")

    def break_off(self) -> None:
        """Shut both sides down, from any thread: whoever reads or writes them ends."""
        self.bandwidth.stop()
        for sock in (self._near, self._far):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break off, wait for the threads, close both sockets.  May be called again."""
        self.break_off()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._near.close()
        self._far.close()

    def _move_out(self) -> None:
        if self._compression is Compression.NONE:
            pump.splice(self._near, self._far, self._out, self.bandwidth)
        else:
            pump.pack(self._near, self._far, self._out, self.bandwidth, self._compression)

    def _move_in(self) -> None:
        if self._framed:
            pump.unpack_all(self._far, self._near, self._in)
        else:
            pump.splice(self._far, self._near, self._in, Bandwidth())

    def _run(self, move: Callable[[], None], target: socket.socket) -> None:
        try:
            move()
        except (OSError, FrameError) as error:
            self._error = self._error or error
        except Exception as error:  # a fault of ours: it must not leave the other side waiting
            self._error = self._error or error
            raise
        finally:
            # The end of one direction is passed on; the other may still answer.
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
            if self._error is not None:
                self.break_off()
