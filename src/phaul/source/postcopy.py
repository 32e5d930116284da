"""The source's end of a post-copy: what of the memory was left out is given from here.

Used on the source, from the final dump until the destination has the last page.  In this order:

    dump        frozen, dumped without the memory, held in CRIU's `post-dump`; the second lock
    attach      the destination restores; what it touches is read from the frozen tree
                Ready comes, DECIDED
    hand_over   CRIU goes on to `status-ready`; the tree is killed, and looked at that it is gone;
                CRIU serves.  Only then Commit
    drained     it runs there, and needs this host until it says that it has all

Until `hand_over` all can be taken back (`refuse`), as in any other cutover.  After it this host has
nothing that could run: whatever fails here loses memory, and never makes a second owner.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Self

import anyio
import anyio.to_thread

from phaul.criu.engine import Engine
from phaul.criu.images import PageFlags, read_pagemap
from phaul.criu.lazydump import LazyDump
from phaul.criu.operation import NotifyHandler
from phaul.criu.rpc import Request
from phaul.errors import CriuError, PageStoreError
from phaul.pages.remote import Backing, CriuPages, Places, Supply, TreeMemory
from phaul.pages.store import Wire
from phaul.subjects.tree import inner_pid
from phaul.transport.beside import beside

__all__ = ["PostCopy", "left_out"]

_HELD: Final = PageFlags.PRESENT | PageFlags.PARENT
_LOOK_S: Final = 1.0

_logger = logging.getLogger("phaul")


def left_out(images: Path) -> Places:
    """The pages that a dump left out, by its page maps; raises ImageError."""
    return Places(
        {
            int(path.stem.removeprefix("pagemap-")): [
                (r.start, r.pages) for r in read_pagemap(path).ranges if not r.flags & _HELD
            ]
            for path in images.glob("pagemap-[0-9]*.img")
        }
    )


class PostCopy:
    """One, from before the dump on, which is `held`.  Whoever has it must `close` it."""

    def __init__(self, dump: LazyDump, *, wide: bool) -> None:
        self.held = dump
        self._wire = Wire(wide=wide)
        self._backing: Backing | None = None
        self._supply: Supply | None = None
        self._criu: CriuPages | None = None
        self.needed_until = 0.0
        """When the destination had all, by the monotonic clock."""

    @classmethod
    def start(cls, engine: Engine, *, wide: bool, config_file: str | None = None) -> Self:
        """Start the CRIU that is going to dump, while the tree runs.

        `wide` is `Version.wide_page_server` of this host's CRIU.  Raises what `LazyDump.start`
        does.
        """
        return cls(LazyDump.start(engine, config_file), wide=wide)

    @property
    def supply(self) -> Supply:
        """What gives the memory; there is one from `dump` on."""
        assert self._supply is not None
        return self._supply

    async def dump(
        self,
        request: Request,
        log_path: Path,
        timeout: float,
        pids: Callable[[], Iterable[int]],
        handler: NotifyHandler | None = None,
    ) -> None:
        """Freeze and dump the tree, whose PIDs are then `pids()`; on return it can be restored.

        The images, which have their pages files beside them, are in the directory of `log_path`.
        Raises CriuError, ImageError; `close` lets the tree run on.
        """
        await self.held.begin(request, log_path, timeout, handler)
        inner = {inner_pid(pid): pid for pid in pids()}
        self._backing = TreeMemory(inner)
        self._supply = Supply(left_out(log_path.parent))
        self._supply.use(self._backing)

    async def refuse(self) -> None:
        """Let the tree run on here: nothing has happened.  Raises CriuDied."""
        await anyio.to_thread.run_sync(self.supply.use, None)
        await self.held.refuse()

    async def hand_over(self, kill: Callable[[], Awaitable[None]]) -> None:
        """Have the tree killed by `kill`, which looks that it is gone, and CRIU give its memory.

        Raises CriuError, PageStoreError, and what `kill` raises.  A tree that was not killed is let
        run on by `close`.
        """
        supply = self.supply
        if supply.error is not None:
            raise supply.error
        await anyio.to_thread.run_sync(supply.use, None)
        await self.held.pass_on()
        with anyio.CancelScope(shield=True):
            await kill()
            await self.held.serve()
        if self._backing is not None:
            self._backing.close()
        self._criu = CriuPages(self.held.pages, self._wire)
        self._backing = self._criu
        supply.use(self._backing)

    async def drained(self, patience: float) -> None:
        """Wait until the destination needs nothing more from here, and CRIU has ended.

        Raises PageStoreError if the memory is lost, which the destination is told at once, or
        nobody has asked for it over any link for `patience` seconds.
        """
        async with beside() as tasks:
            ended = anyio.Event()
            tasks.start_soon(self._see_criu, ended)
            await self._see_supply(patience)
            if self.supply.error is not None:
                raise self.supply.error
            self.needed_until = time.monotonic()
            if self._criu is not None:
                await anyio.to_thread.run_sync(self.supply.use, None)
                try:
                    await anyio.to_thread.run_sync(self._criu.say_done)
                    await ended.wait()
                except PageStoreError as error:
                    _logger.warning("all memory is over there, but %s", error.what)

    async def _see_criu(self, ended: anyio.Event) -> None:
        """Wait for CRIU's end; one that is not in order is told over there, at once."""
        try:
            await self.held.served()
        except CriuError as error:
            if self.supply.done:
                _logger.warning("all memory is over there, but %s", error)
            else:
                lost = PageStoreError(f"the memory is lost: {error}", host=error.host)
                await anyio.to_thread.run_sync(self.supply.fail, lost)
        ended.set()

    async def _see_supply(self, patience: float) -> None:
        """Wait until the destination has all, or there is an error."""
        supply = self.supply
        seen = time.monotonic()
        while supply.error is None and not supply.done:
            with anyio.move_on_after(min(_LOOK_S, patience)):
                await anyio.wait_readable(supply.changed)
            supply.clear()
            if supply.linked:
                seen = time.monotonic()
            elif time.monotonic() > seen + patience:
                raise PageStoreError(
                    f"the destination was not there for {patience:g} s; it may lack memory"
                )

    async def close(self) -> None:
        """End all that is left, and reap CRIU; before `hand_over` it lets the tree run on."""
        with anyio.CancelScope(shield=True):
            if self._supply is not None:
                await anyio.to_thread.run_sync(self._supply.close)
            if self._backing is not None:
                self._backing.close()
            await self.held.close()
