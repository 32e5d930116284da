"""The token that lets a host in: what `phaul serve --token` prints, and a person carries over.

Used once for each pair of hosts.  Pure.  It says where the destination is, how to know it (half of
its certificate's SHA-256), and a secret that is good for one host:

    u8 form = 1 | 16 bytes of the fingerprint | 16 bytes of secret | address | 4 bytes of checksum

in base32, in groups of five.  The checksum is for mistakes in copying, nothing else.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from phaul.errors import UsageError
from phaul.transport.tls.certificate import Certificate
from phaul.transport.tls.target import Address

__all__ = ["SECRET_BYTES", "Invitation"]

SECRET_BYTES: Final = 16
_PRINT_BYTES: Final = 16
_CHECK_BYTES: Final = 4
_FORM: Final = b"\x01"
_GROUP: Final = 5
_LONGEST: Final = 512
_LEAST: Final = len(_FORM) + _PRINT_BYTES + SECRET_BYTES + _CHECK_BYTES


@dataclass(frozen=True)
class Invitation:
    """A token, taken apart."""

    digest: bytes
    """The first half of the SHA-256 of the destination's certificate."""
    secret: bytes
    address: Address

    @classmethod
    def to(cls, certificate: Certificate, secret: bytes, address: Address) -> "Invitation":
        """The invitation to the host with this certificate."""
        return cls(certificate.digest[:_PRINT_BYTES], secret, address)

    @classmethod
    def parse(cls, text: str) -> "Invitation":
        """The invitation in a token, however it is spaced; raises UsageError."""
        # Its text is never quoted: it holds a secret.
        letters = re.sub(r"[\s-]", "", text[:_LONGEST]).upper()
        try:
            data = base64.b32decode(letters + "=" * (-len(letters) % 8))
        except (binascii.Error, ValueError):
            raise _wrong("has letters that are not base32") from None
        body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if len(data) <= _LEAST or len(text) > _LONGEST or _checksum(body) != check:
            raise _wrong("is not whole, or has a mistake in it")
        if body[:1] != _FORM:
            raise UsageError(
                "the token was made by another version of phaul",
                remedy="install the same phaul on both hosts",
            )
        rest = body[len(_FORM) :]
        digest, rest = rest[:_PRINT_BYTES], rest[_PRINT_BYTES:]
        secret, where = rest[:SECRET_BYTES], rest[SECRET_BYTES:]
        try:
            address = Address.parse(where.decode("ascii"))
        except (UsageError, ValueError):
            raise _wrong("names no address") from None
        return cls(digest, secret, address)

    def fits(self, certificate: Certificate) -> bool:
        """Whether this is the certificate of the host that the token was made on."""
        return certificate.digest[:_PRINT_BYTES] == self.digest

    def __str__(self) -> str:
        body = _FORM + self.digest + self.secret + str(self.address).encode("ascii")
        letters = base64.b32encode(body + _checksum(body)).decode().rstrip("=")
        return "-".join(letters[i : i + _GROUP] for i in range(0, len(letters), _GROUP))


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def _wrong(what: str) -> UsageError:
    return UsageError(f"the token {what}", remedy="copy it as a whole, as `phaul serve` printed it")
