"""The huge pages of the tree in preflight: how much they add, and whether they can be split.

Runs on the source.  Where there are few of them, and nobody asked for more, it does nothing.
"""

import random
from typing import Final

import anyio
import anyio.to_thread

from phaul.errors import SubjectError
from phaul.facts import Memory
from phaul.plan.judges.huge import HugeFacts, judge_huge, many
from phaul.protocol.preflight import Finding
from phaul.subjects.changed import Sample
from phaul.subjects.dirty import DirtyMeter
from phaul.subjects.huge import Splitter
from phaul.subjects.khugepaged import Khugepaged

__all__ = ["HugeGlance"]

_AGAIN_S: Final = 0.2
"""For so long it is looked at what really changes."""
_MOST_BLOCKS: Final = 4096


class HugeGlance:
    """What preflight finds of the huge pages in `memory`.

    `tracked`: there can be rounds, without which they do no harm.  `wished`: they are to be split.
    `splitter` and `khugepaged` are others than this host's, for tests.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        tracked: bool,
        wished: bool,
        splitter: Splitter | None = None,
        khugepaged: Khugepaged | None = None,
    ) -> None:
        self.facts = HugeFacts(memory=memory, tracked=tracked, wished=wished)
        self._splitter = splitter or Splitter()
        self._khugepaged = khugepaged or Khugepaged()
        self.blocks: tuple[tuple[int, int], ...] = ()
        """Huge pages that were written to: (PID, address)."""
        self.harmless_rate = 0.0
        """Of the dirty rate, what is so only by huge pages: about, in bytes a second."""

    @property
    def counts(self) -> bool:
        """Whether they make a difference: there are many, and rounds."""
        return self.facts.tracked and many(self.facts.memory)

    @property
    def splits(self) -> bool:
        """Whether they are going to be split."""
        return self.facts.tracked and self.facts.wished and self.can_split

    @property
    def can_split(self) -> bool:
        """Whether they could be; `look` was done."""
        return self.facts.obstacle is None

    async def look(self) -> None:
        """See whether they could be split, if anybody may want to know."""
        if self.counts or self.facts.wished:
            self.facts.obstacle = await anyio.to_thread.run_sync(self._obstacle)

    def _obstacle(self) -> SubjectError | None:
        try:
            self._splitter.available()
            self._khugepaged.available()
        except SubjectError as error:
            return error
        return None

    async def measure(self, meter: DirtyMeter) -> None:
        """See how much of the huge pages that the meter found written to really was."""
        if not self.counts or not meter.huge:
            return
        self.blocks = tuple(random.sample(meter.huge, min(len(meter.huge), _MOST_BLOCKS)))
        sample = Sample(self.blocks, self._splitter.proc)
        await anyio.to_thread.run_sync(sample.look)
        await anyio.sleep(_AGAIN_S)
        times = self.facts.times = await anyio.to_thread.run_sync(sample.look)
        if times is not None:
            self.harmless_rate = meter.huge_rate * (1 - 1 / times)

    def findings(self) -> list[Finding]:
        """Of `thp`, and of `split-huge-pages` if that is wished."""
        return judge_huge(self.facts)
