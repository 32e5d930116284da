"""Workers of CRIU, each started before it is needed.

Used on both hosts, from preflight to the restore.  To start CRIU takes 5 ms natively and 150 ms on
an emulated machine, most of it the dynamic linker's; the next worker starts while a round runs, and
the one that restores before the source is frozen.
"""

from dataclasses import dataclass
from typing import Self

from phaul.criu.engine import Engine, Facts
from phaul.criu.swrk import Swrk

__all__ = ["Workers"]


@dataclass(eq=False)
class Workers:
    """Hands out workers that have the descriptors `pass_fds`; at most one waits unused.

    An async context manager, or await `close` yourself.
    """

    engine: Engine
    pass_fds: tuple[int, ...] = ()
    _spare: Swrk | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def take(self) -> Swrk:
        """A worker, the caller's to close; raises CriuNotFound."""
        spare, self._spare = self._spare, None
        return spare or self.engine.worker(self.pass_fds)

    def prepare(self) -> None:
        """Start the next one; raises CriuNotFound."""
        if self._spare is None:
            self._spare = self.engine.worker(self.pass_fds)

    async def examine(self) -> Facts:
        """Have the engine examined by the worker that is handed out next; see `Engine.examine`."""
        self.prepare()
        assert self._spare is not None
        return await self.engine.examine(self._spare)

    async def close(self) -> None:
        """End the one that waits, if any."""
        if self._spare is not None:
            await self._spare.close()
            self._spare = None
