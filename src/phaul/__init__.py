"""phaul moves a running Linux process tree to another machine while it keeps running.

    config = phaul.Config(pid=4242, memory_fd=fd, work_dir=path)
    server = phaul.Server(config)                 # on the destination
    client = phaul.Client(local, remote, config)  # on the source
    report = client.migrate()

What stands in `__all__` is public; all else may change.  Each name is imported when it is first
used: the agent, whose start the user waits for, needs few of them.
"""

import importlib
import typing

from phaul._version import __version__

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

if typing.TYPE_CHECKING:
    from phaul.client import Client, Criu, Local, Remote
    from phaul.config import Config, Timeouts
    from phaul.criu.rpc import CriuOptions, NetworkLock, PreDumpMode, Version
    from phaul.errors import PhaulError
    from phaul.policy import StopReason, StopRule
    from phaul.report import Downtime, Event, Report, Round, Way
    from phaul.server import Server
    from phaul.source import HeldDump
else:  # hidden from type checkers, for which any name would exist
    _HOMES = {
        "phaul.client": ("Client", "Criu", "Local", "Remote"),
        "phaul.config": ("Config", "Timeouts"),
        "phaul.criu.rpc": ("CriuOptions", "NetworkLock", "PreDumpMode", "Version"),
        "phaul.errors": ("PhaulError",),
        "phaul.policy": ("StopReason", "StopRule"),
        "phaul.report": ("Downtime", "Event", "Report", "Round", "Way"),
        "phaul.server": ("Server",),
        "phaul.source": ("HeldDump",),
    }

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(importlib.import_module(home), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
