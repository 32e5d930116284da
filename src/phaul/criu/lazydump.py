"""The final dump of a post-copy: it leaves the memory out, and CRIU then serves it.

Used on the source, in the cutover and until the last page is in.  CRIU holds the pages in pipes, as
references: they outlive the tree, and can be asked for as often as one likes.

    begin --> held in `post-dump`: the images are written, the pages are in the pipes
                |            |
              refuse      pass_on --> held in `status-ready`: the tree still stands frozen
        the tree runs on             |            |
                                  refuse        serve: who owns the tree has killed it by now,
                            the tree runs on      |    CRIU would do so only at its end
                                               served: told to close, or its socket was closed

To accept `post-dump` takes back nothing of what CRIU set up, and what is refused after it leaves
the network locked and connections in repair mode; so that is for a CRIU that is lost anyhow.

Nothing listens anywhere: CRIU serves on a socket that it inherits.  By RPC only a configuration
file can say so, as `ps.fd` and `ps.address` are not looked at where pages are lazy.
"""

import fcntl
import math
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from phaul.criu.engine import Engine
from phaul.criu.operation import NotifyHandler, Operation
from phaul.criu.rpc import Request, Stage
from phaul.criu.swrk import Swrk, describe_exit
from phaul.errors import CriuError, FeatureMissing, UsageError

__all__ = ["PIPE", "LazyDump", "require_pipes"]

PIPE: Final = 4 << 20
"""The size of the pipes in which CRIU holds pages, in bytes: 1,024 pages each."""


def require_pipes(host: str = "") -> None:
    """Raise FeatureMissing unless CRIU can make its pipes as large as it needs them to serve.

    It would dump all the same, and fail at the first question: when the tree is gone already.
    """
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE)
    except OSError as error:
        raise FeatureMissing(
            f"criu cannot hold the memory of a post-copy in pipes of 4 MiB: {error.strerror}",
            host=host,
            remedy=f"sysctl -w fs.pipe-max-size={PIPE}, or run phaul with CAP_SYS_RESOURCE",
        ) from error
    finally:
        for end in ends:
            os.close(end)


@dataclass(eq=False)
class LazyDump:
    """A worker for such a dump, and the socket on which it is going to serve.  Close it.

    `pages` is our end: whoever speaks to CRIU over it keeps it open until `served` has returned.
    """

    worker: Swrk
    pages: socket.socket
    _config: int
    _operation: Operation | None = None

    @classmethod
    def start(cls, engine: Engine, config_file: str | None = None) -> Self:
        """Start the worker, while the tree still runs; it costs some 5 ms.

        `config_file` is the user's own, of `CriuOptions`.  Raises CriuNotFound, FeatureMissing,
        UsageError.
        """
        require_pipes(engine.host)
        try:
            own = Path(config_file).read_bytes() if config_file else b""
        except OSError as error:
            raise UsageError(f"{config_file} cannot be read: {error.strerror}") from error
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        config = os.memfd_create("criu-config", os.MFD_CLOEXEC)
        try:
            with theirs:
                os.write(config, b"%s\nps-socket %d\n" % (own, theirs.fileno()))
                worker = engine.worker((theirs.fileno(), config))
        except BaseException:
            ours.close()
            os.close(config)
            raise
        return cls(worker, ours, config)

    async def begin(
        self, request: Request, log_path: Path, timeout: float, handler: NotifyHandler | None = None
    ) -> None:
        """Dump as `request` says, but for the memory; on return it is held in `post-dump`.

        `timeout` is in seconds, for each wait.  Raises CriuError.
        """
        config = f"/proc/self/fd/{self._config}"
        request = replace(
            request,
            lazy_pages=True,
            notify=True,
            memory_fd=None,
            options=replace(request.options, config_file=config),
        )
        operation = Operation(self.worker, request, log_path, timeout, handler)
        self._operation = operation
        await operation.begin()
        await operation.until(Stage.POST_DUMP)

    @property
    def operation(self) -> Operation:
        """The dump; raises UsageError before `begin`."""
        if self._operation is None:
            raise UsageError("there is no dump yet")
        return self._operation

    async def refuse(self) -> None:
        """Let the tree run on, and end CRIU."""
        await self.operation.refuse()

    async def pass_on(self) -> None:
        """Go on to `status-ready`, where CRIU is about to serve; raises CriuError."""
        await self.operation.release()
        await self.operation.until(Stage.STATUS_READY)

    async def serve(self) -> None:
        """Let CRIU serve: from now on it answers on the other end of `pages`."""
        await self.operation.release()

    async def served(self) -> None:
        """Wait until CRIU has ended, which it does when it is told to close; takes long.

        Raises CriuError if it failed, and CriuDied as soon as it is dead.
        """
        operation = self.operation
        operation.timeout = math.inf
        await operation.finish()
        status = await self.worker.close()
        if status:
            raise CriuError(
                f"criu {describe_exit(status)} after it had served the memory",
                request=operation.name,
                log_path=str(operation.log_path),
                host=self.worker.host,
            )

    async def close(self) -> int:
        """End CRIU in any case, and reap it; its exit status, -N for signal N.

        Before `serve` it lets the tree go.  May be called again.
        """
        self.pages.close()
        if self._config >= 0:
            os.close(self._config)
            self._config = -1
        return await self.worker.close()
