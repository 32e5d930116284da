"""The process is slowed down while it is copied, and gets its CPU time back, whatever happens.

Runs on the source, in the pre-copy of a migration whose user asked for it, and in whoever comes
after a phaul that died.  What is going to be limited is written down beside the journal before it
is; and a watcher, a process of its own that hears of phaul's end by a pipe, gives it back then.

    begin --> to(share) --> [round, eased] --> to(less) ... --> give_back, in the frozen cutover
                                                           +--> end, on every way out

While it stands still for a round, CRIU runs code in it: the limit is lifted meanwhile.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta

from phaul.errors import CgroupError, PhaulError, StateError
from phaul.incarnation import Incarnation
from phaul.report import Slowdown, SlowedDown, SlowStep
from phaul.report.events import EventHandler
from phaul.report.report import Round
from phaul.storage.aftermath import SLOWED
from phaul.storage.state_dir import read_whole, write_whole
from phaul.subjects.proc import Proc
from phaul.subjects.slow import SlowedGroup, TreeSlow, spent
from phaul.subjects.tree import tree_pids

__all__ = ["Slowed", "Slowing", "give_back_left"]

_LIMIT: Final = 4 << 20
_LOOK_S: Final = 0.002
_LEAST_S: Final = 0.05
"""In less the kernel's clock ticks tell nothing of who used the CPU."""
_LEAST_CPUS: Final = 0.02
"""For a part of the tree that did next to nothing: it may yet begin to."""
_WATCHER_S: Final = 10.0

_logger = logging.getLogger("phaul")


class Slowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to be given back, written down by `phaul`, which is its own to do while it lives."""

    version: int = 1
    phaul: Incarnation
    groups: Annotated[tuple[SlowedGroup, ...], Meta(max_length=16_384)]


class Slowing:
    """Slows the tree below `root` down; `directory` is the migration's own, `name` its ID.

    `slow` is another one than this host's, for tests.
    """

    def __init__(
        self,
        root: int,
        name: str,
        directory: Path,
        emit: EventHandler,
        slow: TreeSlow | None = None,
    ) -> None:
        self._root = root
        self._name = name
        self._file = directory / SLOWED
        self._emit = emit
        self._slow = slow or TreeSlow()
        self._groups: tuple[SlowedGroup, ...] = ()
        self._limits: dict[str, str] = {}
        self._cpus: dict[str, float] = {}
        self._steps: list[SlowStep] = []
        self._since = self._until = 0.0
        self._at_first: dict[int, float] = {}
        self._begun = 0.0
        self._watcher: subprocess.Popen[bytes] | None = None
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
        self._write(groups)
        self._groups = groups
        self._watch()
        self._slow.take(groups, self._root)

    def _limit(self, share: float) -> None:
        planned = [
            self._slow.limited(each, self._cpus[each.group] * share) for each in self._groups
        ]
        self._groups = tuple(each for each, _ in planned)
        self._write(self._groups)
        self._limits = {each.group: text for each, text in planned}
        self._slow.limit(self._limits)

    def _write(self, groups: tuple[SlowedGroup, ...]) -> None:
        me = Incarnation.of(os.getpid())
        assert me is not None
        try:
            # A power cut takes the limits with it: it need not be on the disk.
            write_whole(
                self._file, msgspec.json.encode(Slowed(phaul=me, groups=groups)), sync=False
            )
        except OSError as error:
            raise StateError(
                f"{self._file} cannot be written: {error.strerror}",
                remedy="make room on its file system",
            ) from error

    def _watch(self) -> None:
        try:
            self._watcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "phaul.source.watcher", str(self._file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            _logger.warning("nobody watches over this phaul: %s", error)

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
            with contextlib.suppress(OSError):
                self._file.unlink()

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
            await anyio.to_thread.run_sync(self._dismiss)

    def _dismiss(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        assert watcher.stdin is not None
        watcher.stdin.close()
        try:
            watcher.wait(_WATCHER_S)
        except subprocess.TimeoutExpired:
            watcher.kill()
            watcher.wait()


def give_back_left(file: Path, slow: TreeSlow | None = None, *, orphaned: bool = False) -> bool:
    """Give back what a phaul that died has left slowed down; returns whether there was something.

    `file` is `slowed.json` in a migration's directory.  One whose phaul lives is left alone, unless
    it is known to be `orphaned`.  Raises StateError for a file that is damaged, CgroupError.
    """
    try:
        found = msgspec.json.decode(read_whole(file, _LIMIT), type=Slowed)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(
            f"{file} cannot be read: {str(error)[:200]}",
            remedy="see cpu.max of the process's cgroup",
        ) from error
    if found.phaul.alive() and not orphaned:
        return False
    me = Incarnation.of(os.getpid())
    same_boot = me is not None and me.boot == found.phaul.boot
    if same_boot:
        (slow or TreeSlow()).give_back(found.groups)
    with contextlib.suppress(OSError):
        file.unlink()
    return same_boot
