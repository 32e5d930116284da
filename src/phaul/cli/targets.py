"""TARGET: which connection it means.

Used on the source, before anything is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phaul.storage.keyring import Keyring
from phaul.transport.base import SourceEnd
from phaul.transport.namespace import NamespaceSource
from phaul.transport.ssh import SshOptions, SshSource
from phaul.transport.target import Target
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import TlsTarget

__all__ = ["Reach", "connector"]

LOCAL = "local:"


@dataclass(frozen=True)
class Reach:
    """How a host is reached: `agent` is the command for `phaul agent` over there."""

    target: str
    agent: tuple[str, ...] = ()
    ssh_config: Path | None = None


def connector(reach: Reach) -> Callable[[], SourceEnd]:
    """What makes the connection; raises UsageError for what is no target.

    For `phaul://` also HostKeyUnknown, StateError, ExtraMissing.
    """
    if reach.target == LOCAL:
        return lambda: NamespaceSource(reach.agent)
    if TlsTarget.matches(reach.target):
        keyring = Keyring()
        known, identity = keyring.resolve(TlsTarget.parse(reach.target)), keyring.identity()
        return lambda: TlsSource(known, identity)
    target = Target.parse(reach.target)
    options = SshOptions(remote=reach.agent or ("phaul", "agent"), config_file=reach.ssh_config)
    return lambda: SshSource(target, options)
