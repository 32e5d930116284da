"""Where to: `host`, `user@host`, `ssh://user@host:port`, `user@[v6]`; checked before ssh sees it.

Used in the connect phase, on the source.  Nothing that passes here can be an option of ssh, or mean
something to a shell: ssh puts host and user into the ProxyCommand of the user's configuration.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from phaul.errors import UsageError

__all__ = ["Target"]

_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}")
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_SCHEME: Final = "ssh://"
_REMEDY: Final = "write user@host, ssh://user@host:port, or user@[address] for IPv6"


@dataclass(frozen=True)
class Target:
    """A host as ssh knows it, an alias of the user's configuration included."""

    host: str
    user: str = ""
    port: int | None = None

    def __post_init__(self) -> None:
        if not (_HOST.fullmatch(self.host) or _is_v6(self.host)):
            raise UsageError(f"{self.host!a} is not the name of a host", remedy=_REMEDY)
        if self.user and not _USER.fullmatch(self.user):
            raise UsageError(f"{self.user!a} is not the name of a user", remedy=_REMEDY)
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"{self.port} is not a port", remedy=_REMEDY)

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target in `text`; raises UsageError."""
        rest = text
        is_url = text.startswith(_SCHEME)
        if is_url:
            rest = text.removeprefix(_SCHEME).removesuffix("/")
        user, at, host = rest.rpartition("@")
        if at and not user:
            raise UsageError(f"{text!a} has no user before the @", remedy=_REMEDY)
        port = ""
        if host.startswith("["):
            host, bracket, tail = host[1:].partition("]")
            if not bracket or (tail and not tail.startswith(":")) or not _is_v6(host):
                raise UsageError(f"{text!a} has no IPv6 address in brackets", remedy=_REMEDY)
            colon, port = tail[:1], tail[1:]
        elif is_url or host.count(":") == 1:
            host, colon, port = host.partition(":")
        else:
            colon = ""
        if colon and not is_url:
            # For ssh the port is not in the name, for scp a path follows: better to ask.
            raise UsageError(f"{text!a} has a colon; a port is given as ssh://", remedy=_REMEDY)
        if colon and not re.fullmatch(r"[0-9]{1,5}", port):
            raise UsageError(f"{port!a} is not a port", remedy=_REMEDY)
        return cls(host, user, int(port) if port else None)

    def __str__(self) -> str:
        name = f"{self.user}@{self.host}" if self.user else self.host
        if self.port is None:
            return name
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{_SCHEME}{self.user}@{host}:{self.port}"
            if self.user
            else f"{_SCHEME}{host}:{self.port}"
        )


def _is_v6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True
