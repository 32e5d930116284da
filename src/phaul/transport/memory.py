"""The agent's door for the memory channel of one migration.

Used on the destination, by `phaul agent`; who comes through it is in `transport.splice`.
"""

import os
import socket

import anyio

from phaul.errors import ConnectionLost
from phaul.transport.splice import door_address, is_ours

__all__ = ["MemoryDoor"]


class MemoryDoor:
    """Waits for the memory channel of one migration; `token` is its name."""

    def __init__(self) -> None:
        self.token = os.urandom(16).hex()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(door_address(self.token))
            self._listener.listen(4)
            self._listener.setblocking(False)
        except BaseException:
            self._listener.close()
            raise

    async def accept(self, timeout: float) -> socket.socket:
        """The memory channel, a blocking unix socket, the caller's; raises ConnectionLost."""
        with anyio.move_on_after(timeout):
            while True:
                await anyio.wait_readable(self._listener)
                try:
                    taken, _ = self._listener.accept()
                except OSError:
                    continue
                if is_ours(taken):
                    taken.setblocking(True)
                    return taken
                taken.close()
        raise ConnectionLost(f"no memory channel within {timeout:g} s", host="source")

    def close(self) -> None:
        """Let nobody in any more; may be called again."""
        self._listener.close()
