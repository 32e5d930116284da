"""`criu lazy-pages`: the daemon that gives a restored tree its memory when it is touched.

Used on the destination, from just before the restore until the last page is in.  It is started by
the command line, as CRIU's RPC has no request for it, and gets its pages over a socket that it
inherits: nothing listens anywhere.  `criu restore` finds it by `lazy-pages.socket` in the work
directory that both have.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio

from phaul.criu.log import decisive_line, remedy_for
from phaul.criu.swrk import describe_exit, spawn
from phaul.criu.userfault import Userfaults
from phaul.errors import CriuDied, CriuError, CriuTimeout

__all__ = ["LOG", "LazyDaemon"]

LOG: Final = "lazy-pages.log"
_SOCKET: Final = "lazy-pages.socket"  # CRIU's own name, fixed
_REQUEST: Final = "lazy-pages"
_START_S: Final = 30.0


@dataclass(eq=False)
class LazyDaemon:
    """A running daemon.  Whoever has it must `wait` for it or `end` it.

    When it ends before all pages are in, who reads one that is missing waits, as long as there is a
    copy of `userfaults`, and reads zeros after that: so the tree must be ended before it.
    """

    process: "subprocess.Popen[bytes]"
    log_path: Path
    host: str
    _pidfd: int
    userfaults: Userfaults
    """Copies of what it watches memory with; refreshed by who has the daemon."""

    @classmethod
    async def start(
        cls,
        program: Sequence[str],
        images_dir: Path,
        work_dir: Path,
        pages: socket.socket,
        *,
        log_level: int = 2,
        host: str = "",
    ) -> Self:
        """Start it, and return when a restore with the same work directory can find it.

        `pages` is its end of the socket to the page store, and stays the caller's to close.
        Raises CriuNotFound, and CriuError if it does not start.
        """
        (work_dir / LOG).unlink(missing_ok=True)
        reader, writer = os.pipe()
        try:
            try:
                daemon = cls._spawn(
                    program, images_dir, work_dir, pages.fileno(), writer, log_level, host
                )
            finally:
                os.close(writer)
            try:
                await daemon._ready(reader)
            except BaseException:
                await daemon.end()
                raise
        finally:
            os.close(reader)
        return daemon

    @classmethod
    def _spawn(
        cls,
        program: Sequence[str],
        images_dir: Path,
        work_dir: Path,
        pages_fd: int,
        status_fd: int,
        log_level: int,
        host: str,
    ) -> Self:
        words = [
            *program,
            "lazy-pages",
            *("--images-dir", str(images_dir), "--work-dir", str(work_dir)),
            *("--page-server", "--ps-socket", str(pages_fd), "--status-fd", str(status_fd)),
            *("--log-file", LOG, f"-v{log_level}"),
        ]
        process = spawn(words, (pages_fd, status_fd), subprocess.DEVNULL, host)
        # It is the last to be killed when memory runs out: the tree's memory depends on it.
        with suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("-1000")
        pidfd = os.pidfd_open(process.pid)
        copies = Userfaults(process.pid, pidfd, pages_fd)
        return cls(process, work_dir / LOG, host, pidfd, copies)

    async def _ready(self, status_fd: int) -> None:
        with anyio.move_on_after(_START_S):
            await anyio.wait_readable(status_fd)
            if os.read(status_fd, 1):
                return
            await self.exited()
            raise self._failed(self.process.wait(), CriuDied)
        line = decisive_line(self.log_path)
        raise CriuTimeout(
            f"criu's lazy-pages daemon did not start within {_START_S:g} s",
            request=_REQUEST,
            line=line,
            log_path=str(self.log_path),
            host=self.host,
        )

    async def wait(self) -> None:
        """Wait until it has ended, and reap it: all pages are in.

        Raises CriuError if its exit status is not 0.  May be called again.
        """
        await self.exited()
        self._release()
        status = self.process.wait()
        if status:
            raise self._failed(status, CriuError)
        self.userfaults.close()

    def _failed(self, status: int, kind: type[CriuError]) -> CriuError:
        line = decisive_line(self.log_path)
        return kind(
            f"criu's lazy-pages daemon {describe_exit(status)}",
            request=_REQUEST,
            line=line,
            log_path=str(self.log_path),
            host=self.host,
            remedy=remedy_for(line),
        )

    async def end(self) -> int:
        """Kill it if it runs, and reap it; its exit status, -N for signal N."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                if self.process.poll() is None:
                    os.killpg(self.process.pid, signal.SIGKILL)
            await self.exited()
            self._release()
            self.userfaults.close()
        return self.process.wait()

    async def exited(self) -> None:
        """Wait until it has ended, however it did; `wait` or `end` it as well."""
        while self.process.poll() is None:
            await anyio.wait_readable(self._pidfd)

    def _release(self) -> None:
        self.log_path.with_name(_SOCKET).unlink(missing_ok=True)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
