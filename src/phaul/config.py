"""What is moved, through which channel, and with which limits: given to `Client` and `Server`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phaul.criu.rpc import CriuOptions, Version
from phaul.errors import UsageError
from phaul.policy import StopRule

__all__ = ["Config", "Timeouts"]


@dataclass(frozen=True)
class Timeouts:
    """How long each wait may take, in seconds.

    `round`: a pre-dump with all its pages.  `dump`: the final dump.  `page_server`: until all of a
    round is written, after the source has sent it.  `restore`: until the tree stands restored.
    `finish`: the kill of the source, or the release of the restored.
    """

    round: float = 3600.0
    dump: float = 600.0
    page_server: float = 60.0
    restore: float = 600.0
    finish: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UsageError(f"the time limit {name} is {value}, it must be more than 0")


@dataclass(frozen=True)
class Config:
    """The configuration of one end of a migration.

    `pid` is the root of the tree on the source; a Server needs none.  `memory_fd` is one end of a
    connected stream socket whose other end the other side has; it stays the caller's, and may be
    used by nobody else until the migration is over.  `work_dir` is made if it does not exist, and
    must hold no images.

    `criu` is the program, or a command that ends in it.  `peer_criu` is the version of the other
    side's CRIU where the caller knows it: the two then are compared before anything is sent.
    `require_pre_copy` refuses to fall back to stop and copy on a kernel without soft-dirty.
    With `second_lock`, where there is cgroup v2, the tree is held by a frozen cgroup too as soon as
    it is dumped, so that it stands still whatever becomes of this process and of CRIU: then whoever
    comes after it has to thaw or kill what is in `phaul-PID.lock` below the tree's own cgroup.
    `log_level` is CRIU's (1 errors, 2 warnings, 3 information, 4 all; each level costs downtime).
    """

    memory_fd: int
    work_dir: Path
    pid: int | None = None
    criu: str | Sequence[str] = "criu"
    options: CriuOptions = field(default_factory=CriuOptions)
    stop_rule: StopRule = field(default_factory=StopRule)
    timeouts: Timeouts = field(default_factory=Timeouts)
    peer_criu: Version | None = None
    require_pre_copy: bool = False
    second_lock: bool = False
    log_level: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "work_dir", Path(self.work_dir))
        if not self.criu_command or not all(self.criu_command):
            raise UsageError("criu is an empty command")
        if not 0 <= self.log_level <= 4:
            raise UsageError(f"log_level is {self.log_level}, it must be 0 to 4")

    @property
    def criu_command(self) -> tuple[str, ...]:
        """The command that starts CRIU."""
        return (self.criu,) if isinstance(self.criu, str) else tuple(self.criu)
