"""A byte stream over TLS, for one event loop.

Used on both hosts: for the first lines of each connection, and for the control channel.
"""

import socket
import ssl
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from phaul.transport.tls.certificate import Certificate

__all__ = ["TlsStream", "keep_alive", "say_goodbye"]

_LINGER_S: Final = 2.0
_KEEPALIVE_S: Final = 15
_KEEPALIVES: Final = 4


class TlsStream(ByteStream):
    """A connection whose handshake is done, which it owns; made by `handshake`.

    `fault` says what broke it.  One task may send while another one receives.  A `send` that is
    cancelled leaves it broken, since half a record would be out.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._closed = False
        self.fault = ""

    @classmethod
    async def handshake(
        cls, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool
    ) -> "TlsStream":
        """Do the handshake over a connected socket, which is the stream's, also if this fails.

        Raises OSError (ssl.SSLError is one); the other side has been given the time to read why.
        """
        sock.setblocking(False)
        try:
            wrapped = context.wrap_socket(
                sock,
                server_side=server_side,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except BaseException:
            sock.close()
            raise
        stream = cls(wrapped)
        try:
            while True:
                try:
                    wrapped.do_handshake()
                    return stream
                except ssl.SSLWantReadError:
                    await anyio.wait_readable(wrapped)
                except ssl.SSLWantWriteError:
                    await anyio.wait_writable(wrapped)
        except BaseException as error:
            await stream._end(polite=isinstance(error, OSError))
            raise

    @property
    def peer(self) -> Certificate | None:
        """The other side's certificate; None also for one that no phaul would have."""
        with suppress(ValueError):
            return Certificate(self._sock.getpeercert(binary_form=True) or b"")
        return None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream after the other side's goodbye, BrokenResourceError if there was none
        or the connection broke, ClosedResourceError.
        """
        await checkpoint()
        while True:
            self._check()
            try:
                data = self._sock.recv(max_bytes)
            except ssl.SSLWantReadError:
                await anyio.wait_readable(self._sock)
                continue
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._sock)
                continue
            except OSError as error:
                raise self._broken(error) from error
            if not data:
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        """Raises BrokenResourceError, ClosedResourceError."""
        await checkpoint()
        view = memoryview(item)
        try:
            while view:
                self._check()
                try:
                    view = view[self._sock.send(view) :]
                except ssl.SSLWantWriteError:
                    await anyio.wait_writable(self._sock)
                except ssl.SSLWantReadError:
                    await anyio.wait_readable(self._sock)
                except OSError as error:
                    raise self._broken(error) from error
        finally:
            if view and not self.fault:
                self.fault = "a message was not sent to its end"

    async def read_line(self, most: int) -> bytes:
        """A line of `most` bytes at most, without its end.

        Raises ValueError if there is none, or anything behind it, and what `receive` raises.
        """
        read = b""
        while b"\n" not in read:
            if len(read) > most:
                raise ValueError("the other side sent no line")
            read += await self.receive(most + 1 - len(read))
        line, _, rest = read.partition(b"\n")
        if rest:
            raise ValueError("the other side did not wait for an answer")
        return line

    async def send_eof(self) -> None:
        """TLS cannot end one direction in a way that Python's `ssl` supports."""
        raise NotImplementedError("a TLS stream has no half-closed state")

    async def aclose(self) -> None:
        """Say goodbye, and close; whoever waits gets ClosedResourceError.  May be called again."""
        if not self._closed:
            await self._end(polite=not self.fault)

    def detach(self) -> ssl.SSLSocket:
        """Give the connection away, as a non-blocking socket; the stream is closed then."""
        self._closed = True
        return self._sock

    async def _end(self, *, polite: bool) -> None:
        self._closed = True
        anyio.notify_closing(self._sock)
        try:
            if polite:
                with anyio.move_on_after(_LINGER_S, shield=True):
                    await self._linger()
        finally:
            self._sock.close()

    async def _linger(self) -> None:
        """Wait until the other side has ended too.

        To close with bytes unread would reset the connection, and take the last words with it.
        """
        say_goodbye(self._sock)
        while True:
            await anyio.wait_readable(self._sock)
            try:
                if not socket.socket.recv(self._sock, 65536):
                    return
            except BlockingIOError:
                continue
            except OSError:
                return

    def _check(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self.fault:
            raise anyio.BrokenResourceError

    def _broken(self, error: OSError) -> anyio.BrokenResourceError:
        if isinstance(error, ssl.SSLEOFError):
            self.fault = "it was cut off, without a goodbye"
        else:
            self.fault = getattr(error, "reason", None) or error.strerror or str(error)
        return anyio.BrokenResourceError(self.fault)


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """End this side's direction, as far as that goes without waiting; the other may still send."""
    with suppress(OSError, ValueError):
        sock.unwrap()
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out within about a minute that the other host is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _KEEPALIVE_S * _KEEPALIVES)
