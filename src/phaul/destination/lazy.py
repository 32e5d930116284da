"""A lazy restore's two helpers, held together: CRIU's daemon and the page store that it asks.

Used on the destination, from Prepare until the last page is in.

    begin   the daemon is started, and waits for images; a `Standby`
    tell    the tree is known; the daemon goes on beside what comes next
    start   the store serves, the daemon listens for `criu restore` in the work directory
    guard   the tree waits, and reads no zeros, should the daemon die
    wait    until all is in: the daemon ended with status 0, the store saw it end the conversation
    end     whatever is left of them is ended

When one of them fails, `wait` raises and leaves the rest as it is: who reads memory that is not
there yet waits, and would read zeros once all is closed.  So end the tree first, then call `end`.
"""

import os
import shutil
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio

from phaul.criu.lazydaemon import LazyDaemon
from phaul.destination.chain import INVENTORY, TREE, Chain
from phaul.errors import PageStoreError
from phaul.pages.store import PageStore, Remote, Served, Wire, socket_pair

__all__ = ["Drained", "LazyPages", "Standby"]

_JOIN_S: Final = 10.0
_GUARD_S: Final = 30.0
_GUARD_EVERY_S: Final = 0.01
"""How long a process may wait for nothing when it is the first of its tree to have all its memory,
and a child that was forked meanwhile be without a guard."""


@dataclass(frozen=True)
class Drained:
    """What became of the lazy memory: what was given, and of how many pages.

    `never_asked` is memory that the tree gave up before it was in: it was unmapped, or its process
    ended.
    """

    served: Served
    pages: int
    never_asked: int


class Standby:
    """The daemon, which waits for images, in a directory of its own at `folder`.

    `LazyPages.start` what it is for, and `end` it in any case.
    """

    def __init__(self, daemon: LazyDaemon, sock: socket.socket, folder: Path, host: str) -> None:
        self.daemon = daemon
        self.sock = sock
        """The store's end."""
        self.folder = folder
        self.host = host

    @classmethod
    def begin(
        cls, program: Sequence[str], folder: Path, *, log_level: int = 2, host: str = ""
    ) -> Self:
        """Make `folder`, and start the daemon there.  Raises CriuNotFound, OSError."""
        folder.mkdir(mode=0o700)
        ours, theirs = socket_pair()
        try:
            with theirs:
                daemon = LazyDaemon.begin(program, folder, theirs, log_level=log_level, host=host)
        except BaseException:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(daemon, ours, folder, host)

    async def tell(self, images: Path) -> None:
        """Give it what it goes on with, from the final dump's images; raises OSError."""
        (self.folder / TREE).hardlink_to(images / TREE)
        await self.daemon.tell((images / INVENTORY).read_bytes())

    async def end(self) -> None:
        """End the daemon, and reap it; its directory is removed.  May be called again."""
        await self.daemon.end()
        self.sock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class LazyPages:
    """The two, running.  `wait` until they have ended, and `end` them in any case."""

    def __init__(self, standby: Standby, store: PageStore, chain: Chain) -> None:
        self.daemon = standby.daemon
        self._standby = standby
        self._store = store
        self._sock = standby.sock
        self._chain = chain
        self._host = standby.host
        self._error: BaseException | None = None
        self._in_order = False
        self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._serve, name="phaul-pages", daemon=True)
        self._thread.start()

    @classmethod
    async def start(
        cls,
        standby: Standby,
        chain: Chain,
        work_dir: Path,
        *,
        wide: bool,
        remote: Remote | None = None,
    ) -> Self:
        """Start both; on return a restore with `work_dir` finds the daemon.

        `standby`, which was told, is this object's from now on.  `chain` is finished, for
        `work_dir` and the standby's directory; it stays the caller's, open until `end`.  `wide` is
        `Version.wide_page_server` of this host's CRIU; `remote` brings what is still on the source,
        and is the caller's to end before `end`.  Raises CriuError, OSError.
        """
        store = PageStore(chain.index, chain.files, Wire(wide=wide), remote)
        pages = cls(standby, store, chain)
        try:
            await standby.daemon.ready(work_dir)
        except BaseException:
            await pages.end()
            raise
        return pages

    @property
    def served(self) -> Served:
        """What was given so far."""
        return self._store.served

    @property
    def has_ended(self) -> bool:
        """Whether one of the two has ended, for good or ill: `wait` knows which."""
        return self._error is not None or self.daemon.process.poll() is not None

    def _serve(self) -> None:
        try:
            self._in_order = self._store.serve(self._sock)
        except PageStoreError as error:
            self._error = error
        except BaseException as error:  # a fault of ours: nobody may wait for it for ever
            self._error = error
            raise
        finally:
            os.eventfd_write(self._ended, 1)

    async def guard(self) -> None:
        """Have the tree wait, not read zeros, if the daemon dies: before it is released.

        To be called when the restore is held.  Raises CriuError if the daemon has ended,
        PageStoreError if it cannot be guarded.
        """
        copies = self.daemon.userfaults
        with anyio.move_on_after(_GUARD_S):
            while True:
                if self.daemon.process.poll() is not None:
                    await self.daemon.wait()
                try:
                    copies.refresh()
                except OSError as error:
                    raise PageStoreError(
                        f"the daemon's userfaultfds cannot be held: {error.strerror}",
                        host=self._host,
                    ) from error
                if len(copies) >= len(self._chain.lazy):
                    return
                await anyio.sleep(0.001)
        raise PageStoreError(
            f"criu's daemon watches {len(copies)} processes of {len(self._chain.lazy)}",
            host=self._host,
        )

    async def wait(self) -> Drained:
        """Wait until all pages are in; takes as long as the tree is held, and the drain.

        Raises PageStoreError, CriuError: end the tree then, and these with `end` after it.
        """
        async with anyio.create_task_group() as group:

            async def see_daemon() -> None:
                await self.daemon.exited()
                group.cancel_scope.cancel()

            async def see_store() -> None:
                await anyio.wait_readable(self._ended)
                if self._error is not None:
                    group.cancel_scope.cancel()
                elif self._in_order:
                    self.daemon.userfaults.close()

            async def keep_guard() -> None:
                while not self._in_order:
                    with suppress(OSError):  # what is held stays held; the next time will do
                        self.daemon.userfaults.refresh()
                    await anyio.sleep(_GUARD_EVERY_S)

            group.start_soon(see_daemon)
            group.start_soon(see_store)
            group.start_soon(keep_guard)
        if self._error is None:
            await self.daemon.wait()
            with anyio.move_on_after(_JOIN_S):
                await anyio.wait_readable(self._ended)
        if self._error is not None or not self._in_order:
            raise self._failure() from self._error
        pages = self._chain.lazy_pages
        never = sum(self._store.lacking(pid, of) for pid, of in self._chain.lazy.items())
        return Drained(self.served, pages, never)

    def _failure(self) -> PageStoreError:
        error = self._error
        if isinstance(error, PageStoreError):
            what = error.what
        else:
            what = str(error) if error else "criu's lazy-pages daemon ended without a word"
        given = self.served.pages
        return PageStoreError(f"{what} ({given} pages had been given)", host=self._host)

    async def end(self) -> None:
        """End what is left of the two, and reap it.  May be called again."""
        await self.daemon.end()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(_JOIN_S)
        await self._standby.end()
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1
