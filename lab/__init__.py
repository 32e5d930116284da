"""A laboratory for live migration on one host: a native sandbox and two emulated machines.

    with Sandbox(binds=["/path/of/project:/project:ro"]).popen(["criu", "--version"]) as process:
        ...
    with Lab() as lab:
        lab.src.sh("criu check --all")

See README.md.  Runs on the host, with nothing but the standard library.
"""

from .command import Command
from .errors import (
    BootError,
    BuildError,
    CommandError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    HostError,
    LabError,
    LinkError,
    SandboxError,
    TransferError,
)
from .guest import Guest
from .laboratory import Lab
from .link import Link
from .result import Result
from .sandbox import Bind, Sandbox, SandboxProcess

__all__ = [
    "Bind",
    "BootError",
    "BuildError",
    "Command",
    "CommandError",
    "ConnectionLostError",
    "DeadlineError",
    "Guest",
    "GuestError",
    "HostError",
    "Lab",
    "LabError",
    "Link",
    "LinkError",
    "Result",
    "Sandbox",
    "SandboxError",
    "SandboxProcess",
    "TransferError",
]
