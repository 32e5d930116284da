"""The memory channel: the caller's socket, as CRIU should get it.

Used on both hosts, from the first round to the end of the cutover.  A unix socket is handed to CRIU
as it is, unless something is to be done with its bytes; any other stream socket gets a socket pair
for CRIU and a relay beside it.
"""

import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from phaul.errors import DescriptorError, MemoryChannelError, UsageError
from phaul.pages.bandwidth import Bandwidth
from phaul.pages.buffers import make_room
from phaul.pages.frames import Compression
from phaul.pages.relay import Relay

__all__ = ["MemoryChannel", "OpenChannel"]

_REMEDY: Final = "pass one end of a connected stream socket that stays open during the migration"


class MemoryChannel:
    """The channel over the descriptor `memory_fd`, which stays the caller's.

    It is made blocking, as CRIU needs it.
    Raises DescriptorError if it is closed, or is no connected stream socket.  `criu_fd` is the
    descriptor for CRIU.  After `break_off` the channel is spent: a round that failed leaves bytes
    of unknown number in it, so the next attempt needs a fresh socket.

    `bandwidth` limits what is sent, in bytes a second.  The source's `compression` and the
    destination's `framed` go together: either both ends have them, or neither.  With any of these,
    or with `count`, a unix socket gets a relay too.
    """

    def __init__(
        self,
        memory_fd: int,
        host: str = "",
        *,
        bandwidth: float | None = None,
        compression: Compression = Compression.NONE,
        framed: bool = False,
        count: bool = False,
    ) -> None:
        limit = Bandwidth(bandwidth)
        count = count or framed or bandwidth is not None or compression is not Compression.NONE
        self._sock = _connected(memory_fd, host)
        self._host = host
        self._relay: Relay | None = None
        self._pair: socket.socket | None = None
        self.broken = False
        self._sock.setblocking(True)
        if self._sock.family == socket.AF_UNIX:
            make_room(self._sock)
        if self._sock.family == socket.AF_UNIX and not count:
            self.criu_fd = self._sock.fileno()
        else:
            self._pair, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            for end in (self._pair, near):
                make_room(end)
            self._relay = Relay(
                near,
                self._sock.dup(),
                bandwidth=limit,
                compression=compression,
                framed=framed,
            )
            self.criu_fd = self._pair.fileno()

    @property
    def relayed_bytes(self) -> int | None:
        """The bytes that crossed the network so far, both ways; None where nothing counts them."""
        return self._relay.sent + self._relay.received if self._relay else None

    @property
    def sent(self) -> int | None:
        """The bytes that were sent to the network so far; None where nothing counts them."""
        return self._relay.sent if self._relay else None

    @property
    def received(self) -> int | None:
        """The bytes that came from the network so far; None where nothing counts them."""
        return self._relay.received if self._relay else None

    @property
    def memory_bytes(self) -> int | None:
        """What CRIU wrote and read so far, before compression; None where nothing counts it."""
        return self._relay.memory_bytes if self._relay else None

    def duplicate(self) -> socket.socket:
        """What CRIU would get, as a socket of the caller's own."""
        return socket.socket(fileno=os.dup(self.criu_fd))

    def limit(self, bandwidth: float | None) -> None:
        """Change the limit of what is sent, in bytes a second, None for none; from any thread.

        Raises UsageError where there is no relay: make the channel with `count` for that.
        """
        if self._relay is None:
            raise UsageError("this memory channel has no relay that could limit it")
        self._relay.bandwidth.limit(bandwidth)

    def check(self) -> None:
        """Raise MemoryChannelError if the channel is known to be broken."""
        if self.broken:
            raise MemoryChannelError(
                "the memory channel was broken off by an earlier failure",
                host=self._host,
                remedy="start a new chain with a fresh socket (new_chain)",
            )
        if self._relay:
            self._relay.check()

    def break_off(self) -> None:
        """Shut the channel down, on both sides, whoever holds a copy of the descriptor.

        This is what ends a CRIU that reads or writes it.
        """
        self.broken = True
        if self._relay:
            self._relay.break_off()
        for sock in (self._pair, self._sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close what is ours; the caller's descriptor stays open, and usable if not broken off."""
        if self._relay:
            self._relay.close()
        if self._pair:
            self._pair.close()
        self._sock.close()


OpenChannel = Callable[[int, str], MemoryChannel]
"""Makes the channel over a descriptor, on the host of that name."""


def _connected(descriptor: int, host: str) -> socket.socket:
    """A duplicate of the caller's socket, after it was found to be one that will do."""

    def wrong(what: str) -> DescriptorError:
        return DescriptorError(f"memory_fd {descriptor} {what}", host=host, remedy=_REMEDY)

    try:
        mode = os.fstat(descriptor).st_mode
    except (OSError, OverflowError, TypeError) as err:
        raise wrong("is not an open descriptor") from err
    if not stat.S_ISSOCK(mode):
        raise wrong("is not a socket")
    sock = socket.socket(fileno=os.dup(descriptor))
    try:
        if sock.type != socket.SOCK_STREAM:
            raise wrong("is not a stream socket")
        try:
            sock.getpeername()
        except OSError as err:
            raise wrong("is not connected") from err
        poll = select.poll()
        poll.register(sock, select.POLLRDHUP)
        if poll.poll(0):
            raise wrong("is closed on the other side, or was shut down by an earlier failure")
    except BaseException:
        sock.close()
        raise
    return sock
