"""TARGET: which connection it means.

Used on the source, before anything is done.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from phaul.errors import PhaulError
from phaul.transport.target import Target

if TYPE_CHECKING:
    from phaul.transport.base import SourceEnd

__all__ = ["LOCAL", "Reach", "connector", "dialled"]

LOCAL = "local:"
TLS_SCHEME = "phaul://"


@dataclass(frozen=True)
class Reach:
    """How a host is reached: `agent` is the command for `phaul agent` over there."""

    target: str
    agent: tuple[str, ...] = ()
    ssh_config: Path | None = None


def connector(reach: Reach) -> "Callable[[], SourceEnd]":
    """What makes the connection; raises UsageError for what is no target.

    For `phaul://` also HostKeyUnknown, StateError, ExtraMissing.
    """
    if reach.target == LOCAL:
        from phaul.transport.namespace import NamespaceSource

        return lambda: NamespaceSource(reach.agent)
    if reach.target.startswith(TLS_SCHEME):
        from phaul.storage.keyring import Keyring
        from phaul.transport.tls.source import TlsSource
        from phaul.transport.tls.target import TlsTarget

        keyring = Keyring()
        known, identity = keyring.resolve(TlsTarget.parse(reach.target)), keyring.identity()
        return lambda: TlsSource(known, identity)
    from phaul.transport.ssh import SshOptions, SshSource

    target = Target.parse(reach.target)
    options = SshOptions(remote=reach.agent or ("phaul", "agent"), config_file=reach.ssh_config)
    return lambda: SshSource(target, options)


@contextmanager
def dialled(
    connect: "Callable[[], SourceEnd]", *, wanted: bool = True
) -> "Iterator[Callable[[], SourceEnd]]":
    """Have ssh connect while the caller still loads and looks; yields what makes the connection.

    What keeps ssh from starting keeps it again when the connection is made, and is told then.
    """
    from phaul.transport.base import Dialling

    end = connect()
    if not wanted or not isinstance(end, Dialling):
        yield connect
        return
    # Until the migration itself heeds it, for there would be an ssh left behind.
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with suppress(PhaulError):
            end.dial()
        ends = [end]  # a later connection is a fresh one
        yield lambda: ends.pop() if ends else connect()
    finally:
        end.hang_up()
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
