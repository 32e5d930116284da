"""The destination's end for embedders: the small synchronous surface of the original library.

Runs on the destination, in any process there that may drive CRIU.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.from_thread

from phaul.config import Config
from phaul.criu.rpc import CriuOptions, Version
from phaul.destination.session import DestinationSession

__all__ = ["Server"]


class Server:
    """The destination's end of one migration; a context manager.

    Raises PreflightError if CRIU, the memory socket or the work directory cannot be used.  Its
    methods may be called from any thread, one at a time.  It has a thread of its own, which watches
    the page server while the source sends.
    """

    def __init__(self, config: Config) -> None:
        self._portal, self._thread = _start_loop()
        try:
            self._context = self._portal.wrap_async_context_manager(DestinationSession(config))
            self._session = self._context.__enter__()
        except BaseException:
            self._stop_loop()
            raise

    @property
    def criu_version(self) -> Version:
        """The version of CRIU here, for the other side's `Config.peer_criu`."""
        return self._session.facts.version

    @property
    def last_images_dir(self) -> Path | None:
        """The images directory of the newest round; the final dump's images belong into it."""
        return self._session.last_images_dir

    def start_iteration(self) -> None:
        """Start the page server of one more round; raises CriuError, MemoryChannelError."""
        self._portal.call(self._session.start_iteration)

    def stop_iteration(self) -> None:
        """Wait until the round is written; raises CriuError if the page server failed."""
        self._portal.call(self._session.stop_iteration)

    def new_chain(self, memory_fd: int) -> None:
        """Start over with a fresh socket after a failed or cancelled attempt."""
        self._portal.call(self._session.new_chain, memory_fd)

    def add_images(self, files: Iterable[Path]) -> None:
        """Copy the final dump's image files to `last_images_dir`; raises ImageError."""
        self._session.add_images(files)

    def restore(self, options: CriuOptions | None = None) -> int:
        """Restore the tree and hold it still; returns the PID of its root.

        `options` are the configuration's if none are given.  Then `release` it once the source's
        is gone, or `discard` it.  Raises ImageError, CriuError.
        """
        return self._portal.call(self._session.restore, options)

    def release(self) -> None:
        """Let the restored tree run."""
        self._portal.call(self._session.release)

    def discard(self) -> None:
        """Kill the restored tree, which never ran."""
        self._portal.call(self._session.discard)

    def close(self, *, keep_images: bool = False, keep_logs: bool | None = None) -> None:
        """End what is under way; nothing is left but the tree that was released.

        A tree that is restored and was not released is killed.  CRIU's logs stay if something
        failed, since its error names them, unless `keep_logs` says otherwise.
        """
        if not self._thread.is_alive():
            return

        async def close() -> None:
            await self._session.close(keep_images=keep_images, keep_logs=keep_logs)

        try:
            self._portal.call(close)
        finally:
            self._context.__exit__(None, None, None)
            self._stop_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _stop_loop(self) -> None:
        self._portal.call(self._portal.stop)
        self._thread.join()


def _start_loop() -> tuple[anyio.from_thread.BlockingPortal, threading.Thread]:
    """An event loop in a thread of its own.

    A daemon thread, unlike anyio's: an embedder that forgets `close` still gets its program ended.
    """
    started: Future[anyio.from_thread.BlockingPortal] = Future()

    async def main() -> None:
        async with anyio.from_thread.BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(main)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="phaul-server", daemon=True)
    thread.start()
    return started.result(), thread
