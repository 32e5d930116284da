"""The destination's end for embedders: the small synchronous surface of the original library.

Runs on the destination, in any process there that may drive CRIU.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from phaul.config import Config
from phaul.criu.rpc import CriuOptions, Version
from phaul.destination import DestinationSession

__all__ = ["Server"]

T = TypeVar("T")


class Server:
    """The destination's end of one migration; a context manager.

    Raises PreflightError if CRIU, the memory socket or the work directory cannot be used.  Its
    methods may be called from any thread, one at a time.
    """

    def __init__(self, config: Config) -> None:
        self._lock = threading.Lock()
        # One loop for the whole life: nothing runs in it between two calls.
        self._runner = asyncio.Runner()
        try:
            self._session = self._call(lambda: DestinationSession.open(config))
        except BaseException:
            self._runner.close()
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
        self._call(self._session.start_iteration)

    def stop_iteration(self) -> None:
        """Wait until the round is written; raises CriuError if the page server failed."""
        self._call(self._session.stop_iteration)

    def new_chain(self, memory_fd: int) -> None:
        """Start over with a fresh socket after a failed or cancelled attempt."""
        with self._lock:
            self._session.new_chain(memory_fd)

    def add_images(self, files: Iterable[Path]) -> None:
        """Copy the final dump's image files to `last_images_dir`; raises ImageError."""
        with self._lock:
            self._session.add_images(files)

    def restore(self, options: CriuOptions | None = None) -> int:
        """Restore the tree and hold it still; returns the PID of its root.

        `options` are the configuration's if none are given.  Then `release` it once the source's
        is gone, or `discard` it.  Raises ImageError, CriuError.
        """
        return self._call(lambda: self._session.restore(options))

    def release(self) -> None:
        """Let the restored tree run."""
        self._call(self._session.release)

    def discard(self) -> None:
        """Kill the restored tree, which never ran."""
        self._call(self._session.discard)

    def close(self, *, keep_images: bool = False) -> None:
        """End what is under way; nothing is left but the tree that was released.

        A tree that is restored and was not released is killed.
        """
        if self._runner is not None:
            self._call(lambda: self._session.close(keep_images=keep_images))
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            return self._runner.run(function())
