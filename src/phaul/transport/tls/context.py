"""What each side of a connection demands of the other: TLS 1.3 and a certificate that it knows.

Used at each connection, on both hosts.  A certificate that signs itself is its own anchor, so the
library verifies that the other side holds its key.  Whether it is the very certificate that was
pinned is for the caller to compare afterwards: the library would also take what it has signed.
"""

import ssl
from collections.abc import Iterable

from phaul.errors import StateError
from phaul.transport.tls.certificate import Certificate, Identity

__all__ = ["client_context", "join_context", "server_context"]


def server_context(
    identity: Identity, trusted: Iterable[Certificate], *, joinable: bool
) -> ssl.SSLContext:
    """For the destination.  With `joinable` a client may also come without a certificate.

    Raises StateError if the identity cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL if joinable else ssl.CERT_REQUIRED
    context.num_tickets = 0  # no connection is ever resumed
    _pin(context, trusted)
    _load(context, identity)
    return context


def client_context(identity: Identity, pinned: Certificate) -> ssl.SSLContext:
    """For the source; raises StateError if the identity cannot be used."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _pin(context, [pinned])
    _load(context, identity)
    return context


def join_context() -> ssl.SSLContext:
    """For a client that joins: the caller compares the certificate before it sends anything."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION
    return context


def _pin(context: ssl.SSLContext, certificates: Iterable[Certificate]) -> None:
    # Python 3.13 has it in its defaults, which are not used here; it may come to all contexts.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if data := b"".join(certificate.der for certificate in certificates):
        context.load_verify_locations(cadata=data)


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        # The password is there for a key that has one: without, OpenSSL would ask the terminal.
        context.load_cert_chain(identity.certificate_file, identity.key_file, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise StateError(
            f"{identity.certificate_file} and {identity.key_file} cannot be used: {error}",
            remedy="remove both for a new identity, then let the hosts join again",
        ) from error
