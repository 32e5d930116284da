"""Huge pages in a pre-copy: what they add to the rounds is told, or, as is wished, they are split.

Runs on the source, while the process runs: before the first round, and beside the preparing of each
later one; never while it stands still.

    begin --> [round 0] --> look --> [round 1] --> look ... --> [the final dump] --> end

To split is of use only if nobody puts the pages together again: so khugepaged is made to wait until
the final dump is over.  Its pace is written down before, and given back on every way out (`owed`).
What was faulted in as huge pages since is split before the next round.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from phaul.errors import PhaulError
from phaul.facts import AMPLIFIED
from phaul.report import Amplified, HugePagesSplit, Round
from phaul.report.events import EventHandler
from phaul.report.report import PAGE_SIZE, Split
from phaul.source.owed import Owing, Part
from phaul.subjects.changed import Sample
from phaul.subjects.huge import HUGE_PAGE, Piece, Splitter, huge_bytes
from phaul.subjects.khugepaged import WAITS_MS, Khugepaged
from phaul.subjects.tree import tree_pids

__all__ = ["HugePages"]

_PASSES: Final = 3
"""What was being used, or put together just then, is split by looking again."""
_MOST_S: Final = 30.0
"""For a mapping of many TiB with a huge page here and there: what is left then is left."""
_REST: Final = 20.0
"""After a look comes a rest of so many times as long: it takes a twentieth of the time at most."""

_logger = logging.getLogger("phaul")


class HugePages:
    """The huge pages of the tree below `root`.

    With `owing` they are split, else only looked at: `blocks` are some that were written to, whose
    contents tell how much of them was.  `can_split` says that they could be, if it were wished.
    `splitter` and `khugepaged` are others than this host's, for tests.
    """

    def __init__(
        self,
        root: int,
        emit: EventHandler,
        *,
        owing: Owing | None = None,
        blocks: Sequence[tuple[int, int]] = (),
        can_split: bool = False,
        splitter: Splitter | None = None,
        khugepaged: Khugepaged | None = None,
    ) -> None:
        self._root = root
        self._emit = emit
        self._owing = owing
        self._can_split = can_split
        self._splitter = splitter or Splitter()
        self._khugepaged = khugepaged or Khugepaged()
        self._sample = Sample(blocks, self._splitter.proc) if blocks else None
        self._pace: int | None = None
        self._bytes = self._left = 0
        self._times: float | None = None
        self._told = False
        self._rests_until = 0.0
        self._splits: list[tuple[int, float]] = []

    @property
    def report(self) -> Split | None:
        """What was split, None if nothing was."""
        if not self._splits:
            return None
        return Split(
            split_bytes=sum(split for split, _ in self._splits),
            seconds=sum(seconds for _, seconds in self._splits),
            given_back=self._pace is None,
        )

    async def begin(self) -> None:
        """Split what is there, or see what the sample holds; before the first round."""
        await self._look()

    async def look(self) -> None:
        """Before a later round: how much is in huge pages now, and what of the sample changed.

        Nothing of it is worth a migration: what fails is said, and left.  Nor is it worth much
        time: where memory is large and rounds are short, what was seen before has to do.
        """
        begun = time.monotonic()
        if begun < self._rests_until:
            self._bytes = self._left
            return
        await self._look()
        now = time.monotonic()
        self._rests_until = now + (now - begun) * _REST

    async def _look(self) -> None:
        try:
            self._bytes = self._left = await anyio.to_thread.run_sync(self._count)
            if self._owing is not None:
                if self._bytes >= HUGE_PAGE:
                    await self._split(self._owing)
            elif self._sample is not None:
                self._times = await anyio.to_thread.run_sync(self._sample.look)
        except PhaulError as error:
            _logger.warning("%s", error)

    def told(self, made: Round) -> Round:
        """The round with what huge pages added to it.

        Of a first round they add nothing: all of it has to be sent.
        """
        huge = min(self._bytes, made.pages * PAGE_SIZE)
        if not made.number or huge < HUGE_PAGE:
            return made
        times = None
        if self._times is not None:
            written = made.sent_bytes - huge + huge / self._times
            times = max(made.sent_bytes / written, 1.0)
        return msgspec.structs.replace(made, huge_bytes=huge, amplification=times)

    def tell(self, made: Round) -> None:
        """Say it of a round, the first time that it is much."""
        times = made.amplification
        if times is not None and times >= AMPLIFIED and not self._told:
            self._told = True
            self._emit(
                Amplified(times=times, huge_bytes=made.huge_bytes, can_split=self._can_split)
            )

    async def end(self, error: BaseException | None = None) -> None:
        """Let khugepaged go on as before; a failure is a note of `error`'s."""
        if self._owing is None:
            return
        with anyio.CancelScope(shield=True):
            if self._pace is not None:
                try:
                    await anyio.to_thread.run_sync(self._khugepaged.resume, self._pace)
                except PhaulError as left:
                    what = f"khugepaged may still wait: {left}; `phaul list` tries again"
                    if error is None:
                        _logger.warning("%s", what)
                    else:
                        error.add_note(what)
                else:
                    self._pace = None
                    self._owing.settle(Part.KHUGEPAGED)
            await self._owing.done(Part.KHUGEPAGED)

    async def _split(self, owing: Owing) -> None:
        begun, before = time.monotonic(), self._bytes
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._have_it_wait, owing)
        left = before
        for _ in range(_PASSES):
            for piece in await anyio.to_thread.run_sync(self._pieces):
                if time.monotonic() - begun > _MOST_S:
                    break
                await anyio.to_thread.run_sync(self._splitter.split, piece)
            seen, left = left, await anyio.to_thread.run_sync(self._count)
            if left < HUGE_PAGE or left >= seen:
                break
        self._left = left
        split, seconds = max(before - left, 0), time.monotonic() - begun
        self._splits.append((split, seconds))
        self._emit(HugePagesSplit(split_bytes=split, left_bytes=left, seconds=seconds))

    def _have_it_wait(self, owing: Owing) -> None:
        pace = self._khugepaged.pace()
        if pace == WAITS_MS:  # for us, or for another phaul
            return
        # Written down and watched over before it is done.
        owing.note(Part.KHUGEPAGED, pace)
        self._pace = pace
        self._khugepaged.wait()

    def _count(self) -> int:
        """How much of the tree is in huge pages."""
        proc = self._splitter.proc
        return huge_bytes(tree_pids(self._root, proc), proc)

    def _pieces(self) -> list[Piece]:
        """What of the tree is to be split."""
        return self._splitter.pieces(tree_pids(self._root, self._splitter.proc))
