"""What an ssh that has ended meant by it.

Used on the source.  Pure.  ssh tells its failures apart only by their text, always in English; the
texts are those of OpenSSH 8 to 10.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from phaul import errors
from phaul.errors import ConnectFailed

__all__ = ["diagnose", "last_line"]

_SSH_FAILED: Final = 255
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_MOST: Final = 300
_MOST_LINES: Final = 5


class _Known(NamedTuple):
    """A text of ssh's, and what it means."""

    text: re.Pattern[str]
    kind: type[ConnectFailed]
    remedy: str


def _known(text: str, kind: type[ConnectFailed], remedy: str) -> _Known:
    return _Known(re.compile(text), kind, remedy)


# In this order: the first that any line matches.  A changed host key is also a failed
# verification, and a jump host that fails also ends the connection behind it.
_TEXTS: Final = (
    _known(
        r"IDENTIFICATION HAS CHANGED|Host key for .* has changed|REVOKED HOST KEY"
        r"|host key .* was revoked|Offending .* key in",
        errors.HostKeyChanged,
        "if the host was installed anew, remove the old key: ssh-keygen -R {name}; "
        "otherwise somebody may be in between",
    ),
    _known(
        r"No .* host key is known for|Host key verification failed"
        r"|authenticity of host .* can't be established",
        errors.HostKeyUnknown,
        "connect once by hand and compare the key: ssh {arguments}",
    ),
    _known(
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        errors.HostUnknown,
        "look at the spelling, or name the host in ~/.ssh/config",
    ),
    _known(
        r"[Cc]onnection refused|open failed: connect failed",
        errors.ConnectionRefused,
        "see whether sshd runs over there, and on this port",
    ),
    _known(
        r"No route to host|Network is unreachable|Host is down|Host is unreachable",
        errors.HostUnreachable,
        "look at the network between the two hosts",
    ),
    _known(
        r"(Connection|Operation) timed out|Connection to .* timed out|Timeout, server .* not",
        errors.ConnectTimeout,
        "see whether the host is up, and whether a firewall drops packets to this port",
    ),
    _known(
        r"Permission denied|Too many authentication failures|No supported authentication methods"
        r"|no more authentication methods",
        errors.AuthenticationFailed,
        "try by hand: ssh {arguments}; an agent (ssh-add), or a key over there, is what lacks most",
    ),
)

_NOISE: Final = re.compile(
    r"\*\* |Warning: Permanently added|(Shared c|C)onnection to .* closed|@+\s*$|debug\d:"
    r"|Killed by signal|Disconnected from "
)


def diagnose(
    host: str, port: int | None, user: str, status: int | None, lines: Sequence[str]
) -> ConnectFailed:
    """The error for an ssh that ended with `status` and wrote `lines`.

    `status` is None for one that had to be ended, negative for one that a signal did.
    """
    where = f"{user}@{host}" if user else host
    named = f"'[{host}]:{port}'" if port else host
    arguments = f"-p {port} {where}" if port else where
    said = last_line(lines)
    tail = f": {said}" if said else ""
    if status == _SSH_FAILED:
        for known in _TEXTS:
            line = next((line for line in lines if known.text.search(line)), None)
            if line is not None:
                remedy = known.remedy.format(name=named, arguments=arguments)
                return known.kind(f"ssh: {_clean(line)}", host=where, remedy=remedy)
        return ConnectFailed(
            f"ssh failed{tail}", host=where, remedy=f"try by hand: ssh {arguments}"
        )
    if status in {_NOT_FOUND, _NOT_EXECUTABLE}:
        what = "is no phaul" if status == _NOT_FOUND else "is a phaul that cannot be executed"
        return errors.AgentMissing(
            f"there {what} over there{tail}",
            host=where,
            remedy="install phaul there, where a shell without login finds it, or name its path",
        )
    if status is None:
        return errors.ConnectTimeout(f"ssh did not end by itself{tail}", host=where)
    if status < 0:
        return ConnectFailed(f"ssh was ended by signal {-status}{tail}", host=where)
    return errors.AgentFailed(
        f"phaul over there ended with status {status} before it said a word{_tail(lines)}",
        host=where,
        remedy="try by hand what it says: ssh " + arguments + " phaul agent",
    )


def last_line(lines: Sequence[str]) -> str:
    """The last line that says something."""
    telling = (line for line in reversed(lines) if line.strip() and not _NOISE.match(line))
    return _clean(next(telling, ""))


def _tail(lines: Sequence[str]) -> str:
    """The last lines that say something: an error of phaul's has its remedy last."""
    telling = [_clean(line) for line in lines if line.strip() and not _NOISE.match(line)]
    return "".join(f"\n{line}" for line in telling[-_MOST_LINES:])


def _clean(line: str) -> str:
    """Short, and without what could play with a terminal: the other host may have written it."""
    text = line.strip()
    text = text.removeprefix("ssh: ").strip("@ ")
    return "".join(c if c.isprintable() else "?" for c in text)[:_MOST]
