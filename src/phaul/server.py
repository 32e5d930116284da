"""The destination's end for embedders: the small synchronous surface of the original library.

Runs on the destination, in any process there that may drive CRIU.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio

from phaul.config import Config
from phaul.criu.rpc import CriuOptions, Version
from phaul.destination.session import DestinationSession
from phaul.errors import UsageError

__all__ = ["Server"]

_T = TypeVar("_T")


class Server:
    """The destination's end of one migration; a context manager.

    Raises PreflightError if CRIU, the memory socket or the work directory cannot be used.  Its
    methods may be called from any thread, one at a time.  It has a thread of its own, and another
    in each round, which receives what the source sends.
    """

    def __init__(self, config: Config) -> None:
        self._running = _Running(DestinationSession(config))
        self._session = self._running.session

    @property
    def criu_version(self) -> Version:
        """The version of CRIU here, for the other side's `Config.peer_criu`."""
        return self._session.facts.version

    @property
    def last_images_dir(self) -> Path | None:
        """The images directory of the newest round; the final dump's images belong into it."""
        return self._session.last_images_dir

    def start_iteration(self) -> None:
        """Receive one more round; raises MemoryChannelError, WorkDirError, ImageError."""
        self._running.call(self._session.start_iteration())

    def stop_iteration(self) -> None:
        """Wait until the round is written; raises PageStoreError, ImageError if it failed."""
        self._running.call(self._session.stop_iteration())

    async def start_iteration_async(self) -> None:
        """`start_iteration`, awaited in any event loop; a cancel of it waits for its end."""
        await self._running.answer(self._session.start_iteration())

    async def stop_iteration_async(self) -> None:
        """`stop_iteration`, awaited in any event loop; a cancel of it waits for its end."""
        await self._running.answer(self._session.stop_iteration())

    def new_chain(self, memory_fd: int) -> None:
        """Start over with a fresh socket after a failed or cancelled attempt."""
        self._running.call(self._session.new_chain(memory_fd))

    def add_images(self, files: Iterable[Path]) -> None:
        """Copy the final dump's image files to `last_images_dir`; raises ImageError."""
        self._session.add_images(files)

    def restore(self, options: CriuOptions | None = None) -> int:
        """Restore the tree and hold it still; returns the PID of its root.

        `options` are the configuration's if none are given.  Then `release` it once the source's
        is gone, or `discard` it.  Raises ImageError, CriuError.
        """
        return self._running.call(self._session.restore(options))

    def release(self) -> None:
        """Let the restored tree run."""
        self._running.call(self._session.release())

    def discard(self) -> None:
        """Kill the restored tree, which never ran."""
        self._running.call(self._session.discard())

    def close(self, *, keep_images: bool = False, keep_logs: bool | None = None) -> None:
        """End what is under way; nothing is left but the tree that was released.

        A tree that is restored and was not released is killed.  CRIU's logs stay if something
        failed, since its error names them, unless `keep_logs` says otherwise.
        """
        self._running.end(lambda: self._session.close(keep_images=keep_images, keep_logs=keep_logs))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Running:
    """A session that was entered in an event loop in a thread of its own.

    Raises what entering it raised.  The thread is a daemon, unlike anyio's: an embedder that
    forgets `close` still gets its program ended.  A call is one task of that loop: one hop there
    and one back, where anyio's portal makes two of each and a task group's task.
    """

    def __init__(self, session: DestinationSession) -> None:
        self.session = session
        self._entered: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()
        self._over = asyncio.Event()
        self._close: Callable[[], Coroutine[Any, Any, None]] = session.close
        self._unwanted = False
        self._thread = threading.Thread(target=self._run, name="phaul-server", daemon=True)
        self._thread.start()
        try:
            self._loop = self._entered.result()
        except BaseException:
            self._unwanted = True  # by Ctrl-C: if it is entered after this, it ends by itself
            if self._entered.done() and self._entered.exception() is None:
                self._stop(self._entered.result())
            self._thread.join()
            raise

    def call(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Make a step of the session in its loop; raises what it raises."""
        return self._begin(step).result()

    async def answer(self, step: Coroutine[Any, Any, _T]) -> _T:
        """`call` for a caller in another loop, whose thread does not wait for it."""
        future = asyncio.wrap_future(self._begin(step))
        with anyio.CancelScope(shield=True):
            await asyncio.wait([future])
        return future.result()

    def _begin(self, step: Coroutine[Any, Any, _T]) -> "Future[_T]":
        try:
            return asyncio.run_coroutine_threadsafe(step, self._loop)
        except RuntimeError as error:
            step.close()
            raise UsageError("the server is closed") from error

    def end(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the session closed by `close`, and left, and end the thread.

        Does nothing when it has ended.  Raises what `close` raised.
        """
        if not self._thread.is_alive():
            return
        self._close = close
        self._stop(self._loop)
        self._thread.join()
        self._ended.result()

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # it has just ended
            loop.call_soon_threadsafe(self._over.set)

    def _run(self) -> None:
        error: BaseException | None
        try:
            error = anyio.run(self._main)
        except BaseException as failed:
            error = failed
        if error is None:
            self._ended.set_result(None)
        elif self._entered.done():
            self._ended.set_exception(error)
        else:
            self._entered.set_exception(error)

    async def _main(self) -> Exception | None:
        """Enter the session, wait, close it; returns what went wrong with the closing."""
        error = None
        async with self.session:
            self._entered.set_result(asyncio.get_running_loop())
            if not self._unwanted:
                await self._over.wait()
            try:
                await self._close()
            except Exception as failed:  # not through the session's task group, which wraps it
                error = failed
        return error
