"""Workers of CRIU, each started before it is needed, and reaped beside what comes next.

Used on both hosts, from preflight to the restore.  To start CRIU takes 5 ms natively and 150 ms on
an emulated machine, most of it the dynamic linker's; the next worker starts while a round runs, and
the one that restores before the source is frozen.
"""

from dataclasses import dataclass, field
from typing import Self

from phaul.criu.engine import Engine, Facts
from phaul.criu.perfhooks import PerfHooks
from phaul.criu.swrk import Swrk
from phaul.errors import CriuError, CriuUnfit

__all__ = ["Workers", "examine_anew", "unfit"]


@dataclass(eq=False)
class Workers:
    """Hands out workers that have the descriptors `pass_fds`; at most one waits unused.

    A worker that has given its last answer may be given back with `retire`: to wait for its end
    takes as long as a round trip of the control channel, and nothing depends on it.

    An async context manager, or await `close` yourself.
    """

    engine: Engine
    pass_fds: tuple[int, ...] = ()
    _spare: Swrk | None = None
    _retired: list[Swrk] = field(default_factory=list)
    _hooks: PerfHooks = field(default_factory=PerfHooks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def take(self) -> Swrk:
        """A worker, the caller's to close; raises CriuNotFound."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.has_ended():  # it may have waited for hours
            self.retire(spare)
            spare = None
        return spare or self.engine.worker(self.pass_fds)

    def prepare(self) -> None:
        """Start the next one; raises CriuNotFound."""
        self._retired = [worker for worker in self._retired if not worker.reap()]
        if self._spare is None:
            self._spare = self.engine.worker(self.pass_fds)

    def get_ready(self) -> None:
        """Start the next one, which is going to freeze or to restore: it waits for no kernel then.

        Raises CriuNotFound.
        """
        self._hooks.on()
        self.prepare()

    @property
    def waiting(self) -> Swrk | None:
        """The one that waits unused, still not the caller's."""
        return self._spare

    def retire(self, worker: Swrk) -> None:
        """Let a worker end that has given its last answer: it is reaped by `close` at the latest.

        Any of this host's will do, whoever started it.
        """
        worker.let_go()
        self._retired.append(worker)

    async def examine(self, *, anew: bool = False) -> Facts:
        """Have the engine examined by the worker that is handed out next; see `Engine.examine`."""
        self.prepare()
        assert self._spare is not None
        return await self.engine.examine(self._spare, anew=anew)

    async def close(self) -> None:
        """End the one that waits, if any, and reap those that were retired."""
        spare, self._spare = self._spare, None
        retired, self._retired = self._retired, []
        for worker in [spare, *retired] if spare else retired:
            await worker.close()
        self._hooks.off()


async def examine_anew(engine: Engine) -> Facts:
    """What the engine says of itself now, whatever was remembered.

    Raises CriuUnusable, and nothing else: one that dies of a question is of no use either.
    """
    try:
        async with Workers(engine) as workers:
            return await workers.examine(anew=True)
    except CriuError as error:
        raise unfit(error, engine.host) from error


def unfit(error: CriuError, host: str) -> CriuUnfit:
    """The error for a CRIU that fails while it is only asked what it can do."""
    return CriuUnfit(
        f"criu cannot be asked what it can do: {error.what}",
        host=host,
        remedy=error.remedy or "try `criu check` there by hand",
    )
