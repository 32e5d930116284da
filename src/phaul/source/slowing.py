"""The process is slowed down while it is copied, and gets its CPU time back, whatever happens.

Runs on the source, in the pre-copy of a migration whose user asked for it.  What is going to be
limited is written down before it is, and watched over (`owed`).

    begin --> to(share) --> [round, eased] --> to(less) ... --> give_back, in the frozen cutover
                                                           +--> end, on every way out

While it stands still for a round, CRIU runs code in it: the limit is lifted meanwhile.
"""

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from phaul.errors import CgroupError, PhaulError
from phaul.report import Slowdown, SlowedDown, SlowStep
from phaul.report.events import EventHandler
from phaul.report.report import Round
from phaul.source.owed import Owing, Part
from phaul.subjects.proc import Proc
from phaul.subjects.slow import SlowedGroup, TreeSlow, spent
from phaul.subjects.tree import tree_pids

__all__ = ["Slowing"]

_LOOK_S: Final = 0.002
_LEAST_S: Final = 0.05
"""In less the kernel's clock ticks tell nothing of who used the CPU."""
_LEAST_CPUS: Final = 0.02
"""For a part of the tree that did next to nothing: it may yet begin to."""

_logger = logging.getLogger("phaul")


class Slowing:
    """Slows the tree below `root` down; `name` is the migration's ID, `owing` what phaul owes.

    `slow` is another one than this host's, for tests.
    """

    def __init__(
        self,
        root: int,
        name: str,
        owing: Owing,
        emit: EventHandler,
        slow: TreeSlow | None = None,
    ) -> None:
        self._root = root
        self._name = name
        self._owing = owing
        self._emit = emit
        self._slow = slow or TreeSlow()
        self._groups: tuple[SlowedGroup, ...] = ()
        self._limits: dict[str, str] = {}
        self._cpus: dict[str, float] = {}
        self._steps: list[SlowStep] = []
        self._since = self._until = 0.0
        self._at_first: dict[int, float] = {}
        self._begun = 0.0
        self.share = 1.0
        """What the process has of its CPU time now."""

    @property
    def report(self) -> Slowdown | None:
        """How it went, None if it was never slowed down."""
        if not self._steps:
            return None
        return Slowdown(
            cpus=sum(self._cpus.values()),
            steps=tuple(self._steps),
            share=self._steps[-1].share,
            seconds=(self._until or time.monotonic()) - self._since,
            given_back=not self._groups,
        )

    async def begin(self) -> None:
        """Look at what CPU time the tree has had; from here on is measured what it uses."""
        self._at_first = await anyio.to_thread.run_sync(self._spent)
        self._begun = time.monotonic()

    async def to(self, share: float, rounds: Sequence[Round]) -> None:
        """Let it have `share` of the CPU time that it used in these rounds.

        Raises CgroupError or StateError if that cannot be; `end` gives back what was done.
        """
        if share >= self.share:
            return
        with anyio.CancelScope(shield=True):
            if not self._groups:
                stood = sum(one.frozen_s for one in rounds)
                await anyio.to_thread.run_sync(partial(self._take, stood))
                self._since = time.monotonic()
            await anyio.to_thread.run_sync(partial(self._limit, share))
        self.share = share
        self._steps.append(SlowStep(number=len(rounds), share=share))
        self._emit(SlowedDown(share=share, cpus=sum(self._cpus.values())))

    def _spent(self) -> dict[int, float]:
        return spent(tree_pids(self._root, Proc()))

    def _take(self, stood_s: float) -> None:
        now = self._spent()
        ran = max(time.monotonic() - self._begun - stood_s, _LEAST_S)
        groups = self._slow.plan(self._name, now)
        inside = self._slow.inside(groups, now)
        self._cpus = {
            group: max(
                sum(now[pid] - self._at_first.get(pid, 0.0) for pid in pids) / ran, _LEAST_CPUS
            )
            for group, pids in inside.items()
        }
        # Written down and watched over before it is done.
        self._owing.note(Part.GROUPS, groups)
        self._groups = groups
        self._slow.take(groups, self._root)

    def _limit(self, share: float) -> None:
        planned = [
            self._slow.limited(each, self._cpus[each.group] * share) for each in self._groups
        ]
        self._groups = tuple(each for each, _ in planned)
        self._owing.note(Part.GROUPS, self._groups)
        self._limits = {each.group: text for each, text in planned}
        self._slow.limit(self._limits)

    async def ease(self) -> None:
        """Lift the limits as soon as CRIU has stopped the process, until it has let it go.

        For a round, and for the final dump, which does not let go; cancelled when that is over.
        """
        if not self._limits:
            return
        try:
            while not self._is_traced():
                await anyio.sleep(_LOOK_S)
            if not self._limits:
                return
            self._slow.lift(self._groups)
            while self._limits and self._is_traced():
                await anyio.sleep(_LOOK_S)
        except CgroupError as error:
            _logger.warning("%s", error)
        finally:
            if self._limits:
                try:
                    self._slow.limit(self._limits)
                except CgroupError as error:
                    _logger.warning("%s", error)

    def _is_traced(self) -> bool:
        status = Proc().status(self._root) or {}
        return status.get("TracerPid", "0") != "0"

    async def give_back(self) -> None:
        """Give it its CPU time back; may be called again.  Raises CgroupError if that fails."""
        if not self._groups:
            return
        with anyio.CancelScope(shield=True):
            self._limits = {}
            await anyio.to_thread.run_sync(self._slow.give_back, self._groups)
            self._groups = ()
            self.share = 1.0
            self._until = time.monotonic()
            self._owing.settle(Part.GROUPS)

    async def end(self, error: BaseException | None = None) -> None:
        """Give back what was not yet, and let the watcher go; a failure is a note of `error`'s."""
        with anyio.CancelScope(shield=True):
            try:
                await self.give_back()
            except PhaulError as left:
                what = f"the process may still be slowed down: {left}; `phaul list` tries again"
                if error is None:
                    _logger.warning("%s", what)
                else:
                    error.add_note(what)
            await self._owing.done(Part.GROUPS)
