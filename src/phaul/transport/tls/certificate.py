"""Certificates: a host's own, with its key, and those of others, which are compared as a whole.

Used on both hosts.  `ssl` does all with them but make them; that needs `cryptography`, an extra.
"""

import datetime
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from phaul.errors import ExtraMissing

__all__ = ["MOST_BYTES", "Certificate", "Identity", "make_identity"]

MOST_BYTES: Final = 4096
"""The largest certificate that is taken, in DER.  One of phaul's own has some 500 bytes."""

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
# "No well-defined expiration date" of RFC 5280, 4.1.2.5: a pinned certificate ends when it is
# removed.  The first date is far back, for hosts whose clocks are wrong.
_FIRST_DAY: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_LAST_DAY: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Certificate:
    """A certificate; two are the same if their bytes are.  Raises ValueError for what is none."""

    der: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.der) <= MOST_BYTES:
            raise ValueError(f"a certificate has 1 to {MOST_BYTES} bytes")
        # A sequence of this many bytes, and nothing behind it.
        if self.der[:2] != b"\x30\x82" or int.from_bytes(self.der[2:4]) + 4 != len(self.der):
            raise ValueError("that is not one certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=self.der)
        except ssl.SSLError as error:
            raise ValueError("that is not a certificate") from error

    @classmethod
    def from_pem(cls, text: str) -> "Certificate":
        """The one certificate in `text`, whatever stands around it; raises ValueError."""
        if len(text) > 4 * MOST_BYTES or text.count(_BEGIN) != 1 or text.count(_END) != 1:
            raise ValueError("that is not one certificate in PEM")
        body = text[text.index(_BEGIN) :].partition(_END)[0]
        return cls(ssl.PEM_cert_to_DER_cert(body + _END))

    @property
    def pem(self) -> str:
        """In PEM, with a line end."""
        return ssl.DER_cert_to_PEM_cert(self.der)

    @property
    def digest(self) -> bytes:
        """Its SHA-256, 32 bytes."""
        return hashlib.sha256(self.der).digest()

    @property
    def fingerprint(self) -> str:
        """Its SHA-256 for people, as `openssl x509 -fingerprint -sha256` writes it."""
        return self.digest.hex(":").upper()


@dataclass(frozen=True)
class Identity:
    """This host's certificate and key, as files: `ssl` takes a key from nowhere else."""

    certificate_file: Path
    key_file: Path
    certificate: Certificate


def make_identity(host: str) -> tuple[bytes, bytes]:
    """A new self-signed certificate, and its key, ECDSA P-256; both in PEM.

    Raises ExtraMissing where `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise ExtraMissing(
            "to make this host's key, phaul needs the package `cryptography`",
            remedy="install it: pip install 'phaul[tls]'",
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    # The subject is nobody else's: OpenSSL looks a certificate up by it, and takes the first one.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"phaul {host}"[:64]),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{number:x}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(_FIRST_DAY)
        .not_valid_after(_LAST_DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
