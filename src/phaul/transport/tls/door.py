"""What a connection process asks about who may come in: one interface.

Used on the destination; `phaul.storage.keyring` implements it.
"""

from collections.abc import Mapping
from typing import Protocol

from phaul.transport.tls.certificate import Certificate, Identity

__all__ = ["Door"]


class Door(Protocol):
    """Who this host is, whom it trusts, and whom it would let join."""

    def identity(self) -> Identity:
        """This host's identity; raises StateError, ExtraMissing."""

    def trusted(self) -> Mapping[str, Certificate]:
        """Those who may migrate to here, by name; raises StateError."""

    def joinable(self) -> bool:
        """Whether a token is out; raises StateError."""

    def admit(self, secret: bytes, certificate: Certificate, host: str) -> str:
        """Trust the certificate if the secret is right, which is then used up; returns its name.

        Raises TokenWrong, TokenExpired, StateError.
        """
