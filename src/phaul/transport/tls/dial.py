"""The way to a destination: connect, handshake, compare its certificate, say what is wanted.

Used on the source, for each of the two channels, and by a host that joins.
"""

import errno
import os
import socket
import ssl
from typing import Final

import anyio

from phaul import errors
from phaul.errors import ConnectFailed, ConnectTimeout
from phaul.transport.tls.certificate import Identity
from phaul.transport.tls.context import client_context
from phaul.transport.tls.greeting import LONGEST, OK, Greeting, refusal_error
from phaul.transport.tls.stream import TlsStream, keep_alive
from phaul.transport.tls.target import Address, KnownHost

__all__ = ["TO_JOIN", "changed", "dial", "explain_break", "open_channel"]

TO_JOIN: Final = "let it join: `phaul serve --token` over there, `phaul hosts add` here"

_UNREACHABLE: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
# The alerts by which a TLS library turns a client's certificate down.
_NOT_TRUSTED: Final = {
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV1_ALERT_ACCESS_DENIED",
}


async def open_channel(
    known: KnownHost, identity: Identity, greeting: Greeting, timeout: float
) -> TlsStream:
    """A channel that the other side has said yes to, within `timeout` seconds.

    Raises ConnectFailed in its many kinds, StateError.
    """
    context = client_context(identity, known.certificate)
    host = str(known)
    try:
        with anyio.fail_after(timeout):
            stream = await dial(known.address, context, host)
            try:
                if stream.peer != known.certificate:
                    raise changed(host)
                await _greet(stream, greeting, host)
            except BaseException:
                await stream.aclose()
                raise
    except TimeoutError as error:
        raise ConnectTimeout(
            f"{known.address} did not answer within {timeout:g} s",
            host=host,
            remedy="see whether the host is up, and whether a firewall drops packets to this port",
        ) from error
    return stream


async def dial(address: Address, context: ssl.SSLContext, host: str) -> TlsStream:
    """Connect and shake hands; raises ConnectFailed.  `host` names the other side in errors."""
    sock = await _connect(address, host)
    try:
        return await TlsStream.handshake(sock, context, server_side=False)
    except ssl.SSLCertVerificationError as error:
        raise changed(host) from error
    except OSError as error:
        raise explain_break(error, host) from error


def changed(host: str) -> ConnectFailed:
    """The error for another certificate than the pinned one."""
    return errors.CertificateChanged(
        "its certificate is another one than when it was joined",
        host=host,
        remedy="if phaul's state over there was made anew, `phaul hosts remove` it and add it "
        "again; otherwise somebody may be in between",
    )


def explain_break(error: BaseException, host: str) -> ConnectFailed:
    """The error for a connection that broke before the other side had said yes."""
    reason = getattr(error, "reason", None) or ""
    if reason in _NOT_TRUSTED:
        return errors.NotTrusted(
            "it does not trust this host's certificate", host=host, remedy=TO_JOIN
        )
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return ConnectFailed(
            "it ended the connection before it said a word",
            host=host,
            remedy="see what `phaul serve` over there says, and whether it is what listens there",
        )
    if isinstance(error, ssl.SSLError):
        return ConnectFailed(
            f"TLS failed: {reason or error}",
            host=host,
            remedy="see what listens there: it should be `phaul serve`",
        )
    return _failed(error, host)


async def _greet(stream: TlsStream, greeting: Greeting, host: str) -> None:
    try:
        await stream.send(greeting.line)
        answer = await stream.read_line(LONGEST)
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise explain_break(error.__cause__ or ConnectionResetError(), host) from error
    except ValueError as error:
        raise refusal_error(b"too much", host) from error
    if answer != OK:
        raise refusal_error(answer, host)


async def _connect(address: Address, host: str) -> socket.socket:
    """To the first of its addresses that answers."""
    try:
        found = await anyio.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except (OSError, UnicodeError) as error:
        raise errors.HostUnknown(
            f"{address.host} has no address",
            host=host,
            remedy="look at the spelling, or give its address: `phaul hosts add --address`",
        ) from error
    failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, kind, protocol, _, where in found:
        try:
            return await _connect_to(family, kind, protocol, where)
        except OSError as error:
            failure = error
    raise _failed(failure, host) from failure


async def _connect_to(
    family: int, kind: int, protocol: int, where: tuple[object, ...]
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        keep_alive(sock)
        code = sock.connect_ex(where)
        if code == errno.EINPROGRESS:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        anyio.notify_closing(sock)
        sock.close()
        raise
    return sock


def _failed(error: BaseException, host: str) -> ConnectFailed:
    number = getattr(error, "errno", None)
    what = getattr(error, "strerror", None) or str(error)
    if number == errno.ECONNREFUSED:
        return errors.ConnectionRefused(
            "nobody listens there",
            host=host,
            remedy="start `phaul serve` over there, or see on which port it listens",
        )
    if number in _UNREACHABLE:
        return errors.HostUnreachable(
            f"no way leads there: {what}", host=host, remedy="look at the network between the two"
        )
    if number == errno.ETIMEDOUT:
        return ConnectTimeout("it did not answer", host=host, remedy="see whether the host is up")
    return ConnectFailed(f"the connection failed: {what}", host=host)
