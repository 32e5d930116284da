"""What a finished command left: its status and outputs.  Runs on the host."""

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CommandError


@dataclass(frozen=True, slots=True)
class Result:
    """A finished command, in a sandbox or in a guest."""

    where: str
    argv: Sequence[str]
    status: int
    """The exit status; 128 + N when signal N ended the command."""
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")

    def check(self) -> "Result":
        """Return itself.

        Raises:
            CommandError: the status is not 0.
        """
        if self.status:
            raise CommandError(self.where, self.argv, self.status, self.stdout, self.stderr)
        return self
