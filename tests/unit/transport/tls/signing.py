"""A certificate that another one has signed: what a thief with an old key might make."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from phaul.transport.tls.certificate import Certificate, Identity

__all__ = ["signed_by"]


def signed_by(issuer: Identity, folder: Path) -> Identity:
    signer = serialization.load_pem_private_key(issuer.key_file.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    parent = x509.load_der_x509_certificate(issuer.certificate.der)
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .sign(signer, hashes.SHA256())
    )
    folder.mkdir()
    identity = Identity(
        folder / "identity.pem",
        folder / "identity.key",
        Certificate(made.public_bytes(serialization.Encoding.DER)),
    )
    # With its issuer, so that a chain could be built if there were one.
    identity.certificate_file.write_text(identity.certificate.pem + issuer.certificate.pem)
    identity.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return identity
