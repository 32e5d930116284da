"""The first line of a connection, and its answer: what it is to be, before it is that.

Used on both hosts, right after the handshake.  Pure.  The line is the same in every version of
phaul, for ever; what follows it has versions of its own.

    phaul control 1 | phaul memory TOKEN | phaul join 1
    phaul ok | phaul no WORD
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from phaul import errors
from phaul.errors import ConnectFailed

__all__ = ["LONGEST", "OK", "Greeting", "Purpose", "Refusal", "refusal_error"]

LONGEST: Final = 64
"""No line is longer than that, in bytes."""

OK: Final = b"phaul ok"

_LINE: Final = re.compile(rb"phaul (?:(control|join) 1|memory ([0-9a-f]{32}))")


class Purpose(Enum):
    """What a connection is for."""

    CONTROL = "control"
    MEMORY = "memory"
    JOIN = "join"


@dataclass(frozen=True)
class Greeting:
    """What the client wants; `token` names the agent of a memory channel."""

    purpose: Purpose
    token: str = ""

    @classmethod
    def parse(cls, line: bytes) -> "Greeting":
        """The greeting in a line without its end; raises ValueError."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError("the other side said what is no greeting of phaul's")
        if found[2]:
            return cls(Purpose.MEMORY, found[2].decode())
        return cls(Purpose(found[1].decode()))

    @property
    def line(self) -> bytes:
        """With its end."""
        return f"phaul {self.purpose.value} {self.token or '1'}\n".encode()


class Refusal(Enum):
    """Why not."""

    GARBAGE = "garbage"
    NOT_TRUSTED = "not-trusted"
    NO_AGENT = "no-agent"

    @property
    def line(self) -> bytes:
        """With its end."""
        return f"phaul no {self.value}\n".encode()


_WHY: Final[dict[bytes, tuple[type[ConnectFailed], str, str]]] = {
    b"phaul no garbage": (
        ConnectFailed,
        "phaul over there did not understand what this connection is for",
        "install the same phaul on both hosts",
    ),
    b"phaul no not-trusted": (
        errors.NotTrusted,
        "it does not trust this host's certificate",
        "let it join: `phaul serve --token` over there, `phaul hosts add` here",
    ),
    b"phaul no no-agent": (
        ConnectFailed,
        "there is no phaul agent with this memory channel over there",
        "see over there why the agent ended",
    ),
}


def refusal_error(answer: bytes, host: str) -> ConnectFailed:
    """The error for an answer that is not OK."""
    kind, what, remedy = _WHY.get(
        answer,
        (
            ConnectFailed,
            f"it answered {answer[:LONGEST]!a}, as no phaul does",
            "see what listens there: it should be `phaul serve`",
        ),
    )
    return kind(what, host=host, remedy=remedy)
