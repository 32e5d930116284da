"""A byte stream over file descriptors: a socket, or a pipe for each direction.

Used on both hosts for the control channel: the source has one end of a socket pair, whose other
end ssh has; the agent has what sshd gave it as standard input and output.
"""

import os
import socket
from contextlib import suppress

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

__all__ = ["DescriptorStream", "take_stdio"]


class DescriptorStream(ByteStream):
    """Reads from `reader` and writes to `writer`, which may be one; it owns both.

    They are made non-blocking.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = False
        for descriptor in {reader, writer}:
            os.set_blocking(descriptor, False)

    @classmethod
    def from_socket(cls, sock: socket.socket) -> "DescriptorStream":
        """The stream over a connected socket, which is the stream's from now on."""
        descriptor = sock.detach()
        return cls(descriptor, descriptor)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream at the end, BrokenResourceError, ClosedResourceError."""
        await checkpoint()
        while True:
            self._check()
            try:
                data = os.read(self._reader, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._reader)
                continue
            except ConnectionResetError:
                data = b""
            except OSError as error:
                raise anyio.BrokenResourceError from error
            if not data:
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        """Raises BrokenResourceError if nobody reads any more, ClosedResourceError."""
        await checkpoint()
        view = memoryview(item)
        while view:
            self._check()
            try:
                view = view[os.write(self._writer, view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._writer)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Say that no more is sent; what comes can still be read."""
        if self._reader == self._writer:
            with suppress(OSError), socket.socket(fileno=os.dup(self._writer)) as sock:
                sock.shutdown(socket.SHUT_WR)
        elif self._writer >= 0:
            writer, self._writer = self._writer, -1
            anyio.notify_closing(writer)
            os.close(writer)

    async def aclose(self) -> None:
        """Close both; who waits for them gets ClosedResourceError.  May be called again."""
        if self._closed:
            return
        self._closed = True
        for descriptor in {self._reader, self._writer} - {-1}:
            anyio.notify_closing(descriptor)
            os.close(descriptor)

    def _check(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError


def take_stdio() -> tuple[int, int]:
    """Take standard input and output out of everybody's reach; returns them as two descriptors.

    From then on 0 is empty and 1 is standard error: a library that prints, or a CRIU that inherits
    them, can no longer put a word into the conversation.
    """
    reader, writer = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as null:  # noqa: PTH123 -- pathlib is not needed for this
        os.dup2(null.fileno(), 0)
    os.dup2(2, 1)
    return reader, writer
