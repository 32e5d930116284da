"""What the steps of one migration share on the source, and how a step can be cancelled.

Used on the source, from preflight to the end.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio

from phaul.config import Config
from phaul.criu.workers import Workers
from phaul.errors import Cancelled
from phaul.pages.channel import MemoryChannel
from phaul.policy import StopRule, Verdict
from phaul.report import Round
from phaul.report.events import EventHandler
from phaul.source.hugepages import HugePages
from phaul.source.roundtree import RoundTree
from phaul.source.slowing import Slowing
from phaul.storage.workdir import WorkDir
from phaul.subjects.process import Subject

__all__ = ["Canceller", "Context", "Follow", "Judge", "PageJudge", "Remote"]


class Remote(Protocol):
    """The destination's Server, reached by whatever RPC the caller has.

    Each call returns when the Server's method of that name has, and raises what it raised.
    """

    async def start_iteration(self) -> None:
        """Make the destination ready for the memory of one more round."""

    async def stop_iteration(self) -> None:
        """Wait until the destination has written the round; raise if it has not."""


Follow = Callable[[], Awaitable[None]]
"""Tells the destination that no round comes, but memory that follows over the memory channel."""


class Judge(Protocol):
    """Looks at the rounds so far.

    `share` is how much of its CPU time the process is to have from the last look on.  `leaves` says
    that what is dirty when the rounds are over is to be left, and follows.
    """

    @property
    def share(self) -> float: ...  # noqa: D102
    @property
    def leaves(self) -> bool: ...  # noqa: D102

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        """The last round with what is to be said of it, and why to stop, None to go on.

        Raises MigrationError to end the migration instead.
        """


@dataclass(frozen=True)
class PageJudge:
    """The judge of the original: by the pages that each round had to send."""

    rule: StopRule
    share: float = 1.0
    leaves: bool = False

    def judge(self, rounds: Sequence[Round]) -> tuple[Round, Verdict | None]:
        """See Judge."""
        return rounds[-1], self.rule.decide([r.sent_pages for r in rounds])


class Canceller:
    """Lets a migration be cancelled, but only in the steps that can be undone.

    `request` is called in the event loop's thread; `window` is opened around each such step.
    """

    def __init__(self) -> None:
        self._requested = False
        self._too_late = False
        self._scope: anyio.CancelScope | None = None

    def request(self) -> bool:
        """Ask for the cancel; returns whether there will be one: False once it is too late."""
        if self._too_late:
            return False
        self._requested = True
        if self._scope is not None:
            self._scope.cancel()
        return True

    def close(self) -> None:
        """From now on it is too late; raises Cancelled if it was asked for before."""
        if self._requested:
            raise Cancelled("cancelled")
        self._too_late = True

    @contextmanager
    def window(self) -> Iterator[None]:
        """The steps inside end with Cancelled when, or if before, a cancel was asked for."""
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self._requested:
                scope.cancel()
            try:
                yield
            finally:
                self._scope = None
        if scope.cancel_called:  # caught here, or asked for when nothing waited any more
            raise Cancelled("cancelled")


@dataclass(eq=False)
class Context:
    """One migration on the source.

    `workers` have the memory socket.  Each round takes one of its own: in CRIU's loop of pre-dumps
    on one worker (PRE_DUMP) the rounds add up in one shared block of statistics.  `begun` is when
    the migration began, by the monotonic clock.  `slowing` is None where the process is never to be
    slowed down, `tree` where no memory is going to be left that the rounds have not sent, `huge`
    where huge pages make no difference.
    """

    config: Config
    subject: Subject
    workers: Workers
    channel: MemoryChannel
    work_dir: WorkDir
    remote: Remote
    emit: EventHandler
    canceller: Canceller
    judge: Judge
    begun: float
    slowing: Slowing | None = None
    tree: RoundTree | None = None
    huge: HugePages | None = None

    @property
    def host(self) -> str:
        """The host's name in messages."""
        return self.workers.engine.host
