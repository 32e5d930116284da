"""Joining: a host that has the token makes itself known, and learns whom it will connect to.

Used once for each pair of hosts: `join` on the one that will migrate, `answer_join` on the other.
"""

from typing import Final, Literal

import anyio

from phaul import errors
from phaul.errors import ConnectTimeout, PhaulError, ProtocolError
from phaul.protocol.frames import Decoder, Frame
from phaul.protocol.join import (
    MOST_BYTES,
    Join,
    Joined,
    JoinRefused,
    decode_join,
    decode_join_answer,
    frame,
)
from phaul.transport.tls.certificate import Certificate, Identity
from phaul.transport.tls.context import join_context
from phaul.transport.tls.dial import dial, explain_break
from phaul.transport.tls.door import Door
from phaul.transport.tls.greeting import LONGEST, OK, Greeting, Purpose, refusal_error
from phaul.transport.tls.invitation import Invitation
from phaul.transport.tls.stream import TlsStream
from phaul.transport.tls.target import Address

__all__ = ["answer_join", "join"]

_Why = Literal["wrong", "expired", "failed"]
_REFUSED: Final[dict[_Why, type[errors.JoinFailed]]] = {
    "wrong": errors.TokenWrong,
    "expired": errors.TokenExpired,
    "failed": errors.JoinFailed,
}
_REMEDY: Final = "issue a new one over there: phaul serve --token"


async def join(
    invitation: Invitation,
    identity: Identity,
    host: str,
    *,
    address: Address | None = None,
    timeout: float = 15.0,
) -> tuple[Certificate, str]:
    """Join as `host`; returns the destination's certificate, and what it calls this host.

    `address` stands in for the one in the token.  Nothing is sent before the certificate has been
    compared with the token's.  Raises ConnectFailed in its many kinds, ProtocolError.
    """
    where = address or invitation.address
    try:
        with anyio.fail_after(timeout):
            stream = await dial(where, join_context(), str(where))
            try:
                return await _join(stream, invitation, identity, host, str(where))
            finally:
                await stream.aclose()
    except TimeoutError as error:
        raise ConnectTimeout(
            f"it did not answer within {timeout:g} s",
            host=str(where),
            remedy="see whether `phaul serve` runs there, and whether a firewall is in between",
        ) from error


async def _join(
    stream: TlsStream, invitation: Invitation, identity: Identity, host: str, where: str
) -> tuple[Certificate, str]:
    peer = stream.peer
    if peer is None or not invitation.fits(peer):
        raise errors.CertificateChanged(
            "its certificate is not the one that the token names",
            host=where,
            remedy="see whether the address is right and the token new; otherwise somebody may be "
            "in between",
        )
    request = Join(secret=invitation.secret.hex(), certificate=identity.certificate.pem, host=host)
    try:
        await stream.send(Greeting(Purpose.JOIN).line)
        line = await stream.read_line(LONGEST)
        if line != OK:
            raise refusal_error(line, where)
        await stream.send(frame(request))
        answer = decode_join_answer(await _receive(stream))
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        broken = explain_break(error.__cause__ or ConnectionResetError(), where)
        if isinstance(broken, errors.NotTrusted):
            # It wants a certificate of whoever comes: so nobody can join now.
            raise errors.TokenExpired(
                "no token is out there: it has expired, or was used", host=where, remedy=_REMEDY
            ) from error
        raise broken from error
    except ValueError as error:
        raise refusal_error(b"too much", where) from error
    if isinstance(answer, JoinRefused):
        what = "".join(c if c.isprintable() else "?" for c in answer.what)
        raise _REFUSED[answer.why](what, host=where, remedy=_REMEDY)
    return peer, answer.name


async def answer_join(stream: TlsStream, door: Door) -> str:
    """Take the request of a client that may join, and answer it; returns its name here.

    Raises what was wrong, after it was told.
    """
    await stream.send(OK + b"\n")
    try:
        request = decode_join(await _receive(stream))
        try:
            certificate = Certificate.from_pem(request.certificate)
        except ValueError as error:
            raise ProtocolError(f"the other side sent no certificate: {error}") from error
        name = door.admit(bytes.fromhex(request.secret), certificate, request.host)
    except PhaulError as error:
        why: _Why = "failed"
        for word, kind in _REFUSED.items():
            why = word if type(error) is kind else why
        await stream.send(frame(JoinRefused(why=why, what=error.what[:500])))
        raise
    await stream.send(frame(Joined(name=name)))
    return name


async def _receive(stream: TlsStream) -> Frame:
    decoder = Decoder()
    while True:
        frames = decoder.feed(await stream.receive(MOST_BYTES))
        if len(frames) > 1 or (frames and decoder.buffered):
            raise ProtocolError("the other side did not wait for an answer")
        if frames:
            return frames[0]
        if decoder.buffered > MOST_BYTES:
            raise ProtocolError(f"a message of more than {MOST_BYTES} bytes")
