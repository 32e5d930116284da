"""The memory channel, opened while the preflight goes on.

Runs on the source, from Welcome to the memory channel's first use.  Over ssh it takes as long as
the preflight: a channel in the connection, and a process over there.  Nothing is sent through it
before the preflight has passed; if it does not pass, it is closed unused.
"""

import socket
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from phaul.transport.base import SourceEnd

__all__ = ["Opening"]


class Opening:
    """An async context manager; to leave it closes the socket, or ends the attempt to open it.

    `tasks` does the opening, and must outlive it.
    """

    def __init__(self, end: SourceEnd, token: str, tasks: TaskGroup) -> None:
        self._end = end
        self._token = token
        self._tasks = tasks
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()
        self._socket: socket.socket | None = None
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._tasks.start_soon(self._open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._over.wait()
        if self._socket is not None:
            self._socket.close()

    async def socket(self) -> socket.socket:
        """The socket, which stays this one's; raises what `SourceEnd.open_memory` does."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        assert self._socket is not None
        return self._socket

    async def _open(self) -> None:
        try:
            with self._scope:
                self._socket = await self._end.open_memory(self._token)
        except Exception as error:
            self._error = error
        finally:
            self._over.set()
