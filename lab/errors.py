"""Every exception of the lab, one tree.  Runs on the host.

    LabError                    base: anything the lab itself could not do
    |-- HostError               the host lacks a package, a privilege or a file
    |-- BuildError              an image could not be built
    |-- SandboxError            a sandbox could not be set up, or its command not be started
    |-- GuestError              a guest did not do what was asked
    |   |-- BootError           it did not come up, or ended by itself
    |   |-- ConnectionLostError the talk with its agent broke off
    |   `-- TransferError       files could not be put or got
    |-- LinkError               the link could not be shaped, cut or joined
    |-- CommandError            a command that had to succeed did not
    `-- DeadlineError           something took longer than it was given

Each message says what failed, where, and what to do or where to look.
"""

from collections.abc import Sequence


class LabError(Exception):
    """Base of all the lab's errors."""


class HostError(LabError):
    """The host lacks a package, a privilege or a file."""


class BuildError(LabError):
    """An image could not be built; the message names the build's log."""


class SandboxError(LabError):
    """A sandbox could not be set up, or its command could not be started."""


class GuestError(LabError):
    """A guest did not do what was asked; the message ends with its console's tail."""


class BootError(GuestError):
    """A guest did not come up in time, or its QEMU ended by itself."""


class ConnectionLostError(GuestError):
    """The connection to a guest's agent broke off before the command's status came."""


class TransferError(GuestError):
    """Files could not be copied into or out of a guest."""


class LinkError(LabError):
    """The link between the guests could not be shaped, cut or joined."""


class DeadlineError(LabError):
    """Something took longer than it was given; it has been killed."""


class CommandError(LabError):
    """A command that had to succeed ended with another status than 0."""

    def __init__(
        self, where: str, argv: Sequence[str], status: int, stdout: bytes, stderr: bytes
    ) -> None:
        """Keep the command, its status and both its outputs."""
        self.where = where
        self.argv = tuple(argv)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        output = (stderr or stdout).decode(errors="replace").strip()[-2000:]
        super().__init__(
            f"{where}: {' '.join(self.argv)!r} ended with status {status}: {output or 'no output'}"
        )
