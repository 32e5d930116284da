"""phaul moves a running Linux process tree to another machine while it keeps running.

    config = phaul.Config(pid=4242, memory_fd=fd, work_dir=path)
    server = phaul.Server(config)                 # on the destination
    client = phaul.Client(local, remote, config)  # on the source
    report = client.migrate()

What stands in `__all__` is public; all else may change.
"""

from phaul._version import __version__
from phaul.client import Client, Criu, Local, Remote
from phaul.config import Config, Timeouts
from phaul.criu.rpc import CriuOptions, NetworkLock, PreDumpMode, Version
from phaul.errors import PhaulError
from phaul.policy import StopReason, StopRule
from phaul.report import Downtime, Event, Report, Round, Way
from phaul.server import Server
from phaul.source import HeldDump

__all__ = [
    "Client",
    "Config",
    "Criu",
    "CriuOptions",
    "Downtime",
    "Event",
    "HeldDump",
    "Local",
    "NetworkLock",
    "PhaulError",
    "PreDumpMode",
    "Remote",
    "Report",
    "Round",
    "Server",
    "StopReason",
    "StopRule",
    "Timeouts",
    "Version",
    "Way",
    "__version__",
]
