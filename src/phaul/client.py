"""The source's end for embedders: the small synchronous surface of the original library.

Runs on the source.  The migration itself runs in an event loop in a thread of its own, so that
Ctrl-C arrives here, becomes a cancel, and can never tear the commit apart.
"""

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import EventLoopToken, current_token

from phaul.config import Config
from phaul.errors import Cancelled, MemoryChannelError, UsageError
from phaul.report import Event, Report
from phaul.source import Cutover, HeldDump, Release, SourceSession

__all__ = ["Client", "Criu", "Local", "Remote"]

# Seconds until a Ctrl-C is seen that came when the wait was just about to begin: Python's own
# waits without a limit sleep through it (3 to 6 of 100 times on a loaded machine).
_INTERRUPT_S = 0.2


class Criu:
    """What `dump_copy_restore` dumps with."""

    def __init__(self, cutover: Cutover) -> None:
        self._cutover = cutover

    def dump(self) -> HeldDump:
        """Freeze the tree and dump it.

        On return the tree stands frozen, its memory has arrived on the destination, and the
        result's images are to be copied there.  Raises CriuError and what the destination says of
        the memory; the tree runs on then.
        """
        return anyio.from_thread.run(self._cutover.dump)


class Local(Protocol):
    """The caller's work on the source."""

    def dump_copy_restore(
        self, criu: Criu, config: Config, last_images_dir: Path | None
    ) -> Callable[[], None] | None:
        """Called when the pre-copy is over: `criu.dump()`, copy the images, restore them there.

        `last_images_dir` is the source's images directory of the last round, None where there was
        no pre-copy.  To return kills the tree on the source; to raise lets it run on.  The restored
        tree should stand still until then: what is returned is called to let it run.
        """


class Remote(Protocol):
    """The destination's `Server`, reached by whatever RPC the caller has; a Server is one."""

    def start_iteration(self) -> None:
        """Call `Server.start_iteration`."""

    def stop_iteration(self) -> None:
        """Call `Server.stop_iteration`."""


class Client:
    """The source's end of one migration.

    `on_event` is called with each event as it happens, in the migration's thread.
    """

    def __init__(
        self,
        local: Local,
        remote: Remote,
        config: Config,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._local = local
        self._remote = remote
        self._on_event = on_event
        self._config = config
        self._spent = False
        self._lock = threading.Lock()
        self._session: SourceSession | None = None
        self._token: EventLoopToken | None = None
        self._cancelled = self._ended = False
        if config.pid is None:
            raise UsageError("the source's configuration needs a pid")

    def migrate(self) -> Report:
        """Move the process, and return when it is gone from here.

        Raises PreflightError before anything was done; RoundFailed, CutoverFailed, Cancelled or
        KeyboardInterrupt when all was undone and the process runs on here; OutcomeUnknown when
        that cannot be told.
        """
        if self._spent:
            raise MemoryChannelError(
                "the memory channel was used by an earlier attempt",
                remedy="start a new chain with a fresh socket: new_chain()",
            )
        session = SourceSession(
            self._config,
            _AsyncLocal(self._local, self._config),
            _AwaitedRemote(self._remote)
            if isinstance(self._remote, _Awaited)
            else _AsyncRemote(self._remote),
            self._on_event,
        )

        async def run() -> Report:
            with self._lock:
                self._token = current_token()
                self._session = session
                if self._cancelled:
                    session.canceller.request()
            try:
                return await session.migrate()
            finally:
                with self._lock:
                    self._session = self._token = None
                    self._ended = True
                    self._spent = session.channel_used

        return self._run(run)

    def cancel(self) -> bool:
        """Ask the running migration to cancel, from any thread or from the event callback's.

        Returns whether it will: once the tree is dumped and held it is too late, and `migrate`
        goes on to its end.  Before `migrate`, it is `migrate` that ends as cancelled.
        """
        with self._lock:
            if self._session is None or self._token is None:
                self._cancelled = not self._ended
                return self._cancelled
            canceller, token = self._session.canceller, self._token
        try:
            if current_token() == token:
                return canceller.request()
        except RuntimeError:
            pass  # not in the loop's thread
        try:
            return anyio.from_thread.run_sync(canceller.request, token=token)
        except RuntimeError:
            return False  # the loop has just ended

    def new_chain(self, memory_fd: int) -> None:
        """Make ready for another attempt, with a fresh socket; the Server needs the same."""
        if self._session is not None:
            raise UsageError("a migration is under way")
        self._config = replace(self._config, memory_fd=memory_fd)
        self._spent = self._cancelled = self._ended = False

    def _run(self, main: Callable[[], Coroutine[Any, Any, Report]]) -> Report:
        outcome: Future[Report] = Future()

        def target() -> None:
            try:
                outcome.set_result(anyio.run(main))
            except BaseException as error:
                outcome.set_exception(error)

        thread = threading.Thread(target=target, name="phaul-migrate")
        thread.start()
        interrupted = False
        # Not `join`: in Python 3.11, one that Ctrl-C interrupts takes the thread for ended.
        while True:
            try:
                while not outcome.done():
                    wait([outcome], _INTERRUPT_S)
                break
            except KeyboardInterrupt:
                interrupted = True
                self.cancel()
        thread.join()
        try:
            return outcome.result()
        except Cancelled as error:
            if interrupted:
                raise KeyboardInterrupt from error
            raise


@runtime_checkable
class _Awaited(Protocol):
    """A Remote that can be awaited too, as a Server of this very process can."""

    async def start_iteration_async(self) -> None: ...

    async def stop_iteration_async(self) -> None: ...


class _AwaitedRemote:
    """Asks it without a thread in between: two switches of threads a call, not four."""

    def __init__(self, remote: _Awaited) -> None:
        self.start_iteration = remote.start_iteration_async
        self.stop_iteration = remote.stop_iteration_async


class _AsyncRemote:
    """Calls the caller's Remote in a worker thread, so that the loop stays free."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def start_iteration(self) -> None:
        await anyio.to_thread.run_sync(self._remote.start_iteration)

    async def stop_iteration(self) -> None:
        await anyio.to_thread.run_sync(self._remote.stop_iteration)


class _AsyncLocal:
    """Calls the caller's Local in a worker thread."""

    def __init__(self, local: Local, config: Config) -> None:
        self._local = local
        self._config = config

    async def dump_copy_restore(self, cutover: Cutover) -> Release | None:
        release = await anyio.to_thread.run_sync(
            self._local.dump_copy_restore, Criu(cutover), self._config, cutover.last_images_dir
        )
        if release is None:
            return None

        async def call() -> None:
            await anyio.to_thread.run_sync(release)

        return call
