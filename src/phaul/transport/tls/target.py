"""Where to: `phaul://NAME`, a host that has been joined, or `phaul://HOST:PORT`, its address.

Used in the connect phase, on the source; addresses also by the destination's daemon.
"""

import re
from dataclasses import dataclass
from typing import Final

from phaul.errors import UsageError
from phaul.transport.target import Target
from phaul.transport.tls.certificate import Certificate

__all__ = ["DEFAULT_PORT", "Address", "KnownHost", "TlsTarget", "is_name"]

DEFAULT_PORT: Final = 7433
"""Where `phaul serve` listens if it is not told otherwise."""

_SCHEME: Final = "phaul://"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LONGEST: Final = 128


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a host in the state directory: it becomes a file's name."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True)
class Address:
    """Where somebody listens: a name or an address, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, port: int = DEFAULT_PORT) -> "Address":
        """The address in `text`, at `port` if it names none; raises UsageError."""
        try:
            # The same as for ssh, where the checks are: nothing odd reaches the resolver.
            target = Target.parse(f"ssh://{text[:_LONGEST]}")
        except UsageError as error:
            raise _wrong(text) from error
        if target.user or len(text) > _LONGEST or text.endswith("/"):
            raise _wrong(text)
        return cls(target.host, target.port or port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class KnownHost:
    """A destination that has been joined: what this host calls it, where it is, who it is."""

    name: str
    address: Address
    certificate: Certificate

    def __str__(self) -> str:
        return f"{_SCHEME}{self.name}"


@dataclass(frozen=True)
class TlsTarget:
    """What a user wrote: the name of a known host, or (and) its address."""

    name: str
    address: Address

    @classmethod
    def matches(cls, text: str) -> bool:
        """Whether `text` means this transport."""
        return text.startswith(_SCHEME)

    @classmethod
    def parse(cls, text: str) -> "TlsTarget":
        """The target in `text`; raises UsageError."""
        rest = text.removeprefix(_SCHEME).removesuffix("/")
        if rest == text or not rest:
            raise _wrong(text)
        address = Address.parse(rest)
        return cls(rest if is_name(rest) else "", address)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.name or self.address}"


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"{text[:_LONGEST]!a} is no host and port",
        remedy="write HOST:PORT, or [ADDRESS]:PORT for IPv6; a target is phaul://NAME "
        "or phaul://HOST:PORT",
    )
