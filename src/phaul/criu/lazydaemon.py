"""`criu lazy-pages`: the daemon that gives a restored tree its memory when it is touched.

Used on the destination, from Prepare until the last page is in.  It is started by the command line,
as CRIU's RPC has no request for it, and gets its pages over a socket that it inherits: nothing
listens anywhere.  `criu restore` finds it by `lazy-pages.socket` in its own work directory.

To start takes CRIU 5 ms, and more beside a load, which is not to fall into the downtime.  So its
`inventory.img`, the first image that it reads, is a pipe, where it waits until there is one:

    begin   it starts, does all that needs no images, and waits in read(2)
    tell    it gets the inventory, reads `pstree.img`, listens, and says that it is ready
    ready   is when it has said so; the page maps it reads when restored tasks come to it
"""

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
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
_FIRST: Final = "inventory.img"
_REQUEST: Final = "lazy-pages"
_START_S: Final = 30.0


@dataclass(eq=False)
class LazyDaemon:
    """A daemon that was begun.  Whoever has it must `wait` for it or `end` it.

    When it ends before all pages are in, who reads one that is missing waits, as long as there is a
    copy of `userfaults`, and reads zeros after that: so the tree must be ended before it.
    """

    process: "subprocess.Popen[bytes]"
    log_path: Path
    host: str
    pidfd: int
    """Its own, until it was reaped."""
    _inventory: int
    """Where it waits for the inventory to be written to."""
    _status: int
    userfaults: Userfaults
    """Copies of what it watches memory with; refreshed by who has the daemon."""

    @classmethod
    def begin(
        cls,
        program: Sequence[str],
        folder: Path,
        pages: socket.socket,
        *,
        log_level: int = 2,
        host: str = "",
    ) -> Self:
        """Start it, with the empty directory `folder` for all that it reads and writes.

        `pages` is its end of the socket to the page store, and stays the caller's to close.
        Raises CriuNotFound, OSError.
        """
        with ExitStack() as theirs, ExitStack() as ours:
            status, telling = os.pipe()
            ours.callback(os.close, status)
            theirs.callback(os.close, telling)
            waiting, inventory = os.pipe()
            ours.callback(os.close, inventory)
            theirs.callback(os.close, waiting)
            os.set_blocking(inventory, False)
            # Of a pipe that it has open already: to open this one waits for nobody.
            (folder / _FIRST).symlink_to(f"/proc/self/fd/{waiting}")
            words = [
                *program,
                "lazy-pages",
                *("--images-dir", str(folder), "--work-dir", str(folder)),
                *("--page-server", "--ps-socket", str(pages.fileno())),
                *("--status-fd", str(telling), "--log-file", LOG, f"-v{log_level}"),
            ]
            passed = (pages.fileno(), telling, waiting)
            process = spawn(words, passed, subprocess.DEVNULL, host)
            ours.pop_all()
        # It is the last to be killed when memory runs out: the tree's memory depends on it.
        with suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("-1000")
        pidfd = os.pidfd_open(process.pid)
        copies = Userfaults(process.pid, pidfd, pages.fileno())
        return cls(process, folder / LOG, host, pidfd, inventory, status, copies)

    async def tell(self, inventory: bytes) -> None:
        """Have it go on, once; its directory has `pstree.img` by now."""
        with anyio.move_on_after(_START_S), suppress(BrokenPipeError):  # `ready` tells of both
            while inventory:
                try:
                    inventory = inventory[os.write(self._inventory, inventory) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._inventory)
        os.close(self._inventory)  # it reads to the end
        self._inventory = -1

    async def ready(self, work_dir: Path) -> None:
        """Wait, once it was told, until a restore with `work_dir` can find it.

        That is on the same file system as its directory; its log is there from then on.  Raises
        CriuError if it does not start, OSError.
        """
        says = b""
        with anyio.move_on_after(_START_S) as waiting:
            await anyio.wait_readable(self._status)
            says = os.read(self._status, 1)
        with suppress(FileNotFoundError):  # it has not even come so far
            if says:
                self.log_path.with_name(_SOCKET).replace(work_dir / _SOCKET)
            self.log_path = self.log_path.replace(work_dir / LOG)
        if says:
            return
        if not waiting.cancelled_caught:
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
            await anyio.wait_readable(self.pidfd)

    def _release(self) -> None:
        self.log_path.with_name(_SOCKET).unlink(missing_ok=True)
        for descriptor in (self.pidfd, self._inventory, self._status):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self._inventory = self._status = -1
