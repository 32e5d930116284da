"""One `criu swrk` process: started, spoken to packet by packet, always ended and reaped.

Used in every phase, on both hosts.  CRIU reads requests from one end of a SOCK_SEQPACKET pair and
answers on it, one message a packet.  The worker is a session leader of its own, so that Ctrl-C on
the terminal reaches phaul and never CRIU in the middle of a cutover.
"""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio

from phaul.criu.log import decisive_line
from phaul.criu.rpc import MAX_PACKET, Request, Response, decode, encode, encode_notify_answer
from phaul.errors import CriuDied, CriuNotFound, ImageError

__all__ = ["Swrk", "describe_exit", "spawn"]

# A worker whose socket is closed thaws what it froze and ends; 10 s is some hundred times what
# that took for a tree of 200 tasks.
_END_GRACE_S: Final = 10.0
_STDERR_LIMIT: Final = 4096


def describe_exit(status: int) -> str:
    """How a process ended, from its exit code: -N for signal N."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def spawn(
    words: Sequence[str], pass_fds: Sequence[int], stderr: int, host: str
) -> "subprocess.Popen[bytes]":
    """Start a CRIU in a session of its own, with nothing to read, and its errors in `stderr`.

    `pass_fds` are inherited under their own numbers.  Raises CriuNotFound if it cannot be executed.
    """
    try:
        return subprocess.Popen(
            words,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as err:
        raise CriuNotFound(
            f"{words[0]} cannot be started: {err.strerror}",
            host=host,
            remedy="install CRIU (Debian: apt-get install criu), or say where it is",
        ) from err


@dataclass(eq=False)
class Swrk:
    """A running worker.  Use it as an async context manager, or await `close` yourself.

    `log_path` is where its next request will log; an error quotes it.  With `takes_along`, what it
    has forked does not outlive it: for a restore, until the tree is somebody's to run.
    """

    process: "subprocess.Popen[bytes]"
    sock: socket.socket
    host: str
    log_path: Path | None = None
    takes_along: bool = False
    _pidfd: int = -1
    _stderr: int = -1
    _either: select.epoll = field(default_factory=select.epoll)
    _said: str = ""

    @classmethod
    def start(cls, program: Sequence[str], *, pass_fds: Sequence[int] = (), host: str = "") -> Self:
        """Start `program` (a path, or a command that ends in one) as a worker.

        `pass_fds` are inherited under their own numbers; they stay the caller's.
        Raises CriuNotFound if the program cannot be executed.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What CRIU says before it has a log; a memory file never blocks it.
        stderr = os.memfd_create("criu-stderr", os.MFD_CLOEXEC)
        try:
            with theirs:
                words = [*program, "swrk", str(theirs.fileno())]
                process = spawn(words, (theirs.fileno(), *pass_fds), stderr, host)
        except BaseException:
            ours.close()
            os.close(stderr)
            raise
        ours.setblocking(False)
        made = cls(process, ours, host, _pidfd=os.pidfd_open(process.pid), _stderr=stderr)
        made._either.register(ours, select.EPOLLIN)
        made._either.register(made._pidfd, select.EPOLLIN)
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def send_first(self, request: Request) -> None:
        """Send one of the first requests, for which there is room; `receive` tells of its end."""
        with suppress(OSError):
            self.sock.send(encode(request))

    async def send(self, request: Request) -> None:
        """Send `request`; raises CriuDied if nobody is there to read it."""
        await self._send(encode(request), request.type.name)

    async def answer_notification(self, *, accept: bool) -> None:
        """Let CRIU go on from a notification, or make it give up."""
        await self._send(encode_notify_answer(accept=accept), "NOTIFY")

    async def _send(self, packet: bytes, request: str) -> None:
        while True:
            try:
                self.sock.send(packet)
                return
            except BlockingIOError:
                await anyio.wait_writable(self.sock)
            except OSError as err:
                raise await self._died(request) from err

    async def receive(self, request: str) -> Response:
        """The next answer; `request` names what it belongs to.

        Raises CriuDied if the worker ended, or said what is no answer.
        """
        over = False
        while True:
            try:
                packet = self.sock.recv(MAX_PACKET)
                break
            except BlockingIOError:
                if over:
                    raise await self._died(request) from None
                await anyio.wait_readable(self._either)
                over = self._over()  # before the next look: what it said until then is there
            except OSError as err:
                raise await self._died(request) from err
        if not packet:
            raise await self._died(request)
        try:
            return decode(packet)
        except ImageError as err:
            raise CriuDied(
                f"criu's answer to {request} cannot be read: {err.what}",
                request=request,
                host=self.host,
                log_path=str(self.log_path or ""),
            ) from err

    async def call(self, request: Request) -> Response:
        """Send a request that has no notifications, and return its answer, successful or not."""
        await self.send(request)
        return await self.receive(request.type.name)

    async def _died(self, request: str) -> CriuDied:
        status = await self.close()
        return CriuDied(
            f"criu {describe_exit(status)}, without an answer to {request}",
            request=request,
            line=decisive_line(self.log_path) or self.last_words(),
            host=self.host,
            log_path=str(self.log_path or ""),
        )

    def last_words(self) -> str:
        """The last line that the worker wrote to its standard error, or ""."""
        if self._stderr >= 0:
            start = max(os.fstat(self._stderr).st_size - _STDERR_LIMIT, 0)
            text = os.pread(self._stderr, _STDERR_LIMIT, start).decode(errors="replace")
            self._said = (text.strip().splitlines() or [""])[-1]
        return self._said

    def has_ended(self) -> bool:
        """Whether the worker has ended, or is about to.

        A process that dies closes its sockets before what it traces is let go (the kernel's
        do_exit: exit_files, then exit_notify).  So whatever this says False to is still held.
        """
        ends = select.poll()
        ends.register(self.sock, select.POLLRDHUP)
        return bool(ends.poll(0)) or self._over()

    def _over(self) -> bool:
        """Whether the worker itself has ended.

        Its socket does not tell: what it has forked holds that open, half restored tasks too.
        """
        if self._pidfd < 0:
            return True
        ends = select.poll()
        ends.register(self._pidfd, select.POLLIN)
        return bool(ends.poll(0))

    def let_go(self) -> None:
        """Let a worker that gave its last answer end by itself: it has no more to be asked.

        `reap` or `close` still has to reap it.
        """
        self.sock.close()

    def reap(self) -> bool:
        """Reap the worker if it has ended; returns whether it has.  Does not wait."""
        if self.process.poll() is None:
            return False
        self._release()
        return True

    async def close(self) -> int:
        """End the worker and reap it; returns its exit status, -N for signal N.

        A worker in the middle of a request sees its socket closed, undoes what it did and ends;
        one that does not within 10 s is killed with all that it forked.  May be called again.
        """
        with anyio.CancelScope(shield=True):
            self.sock.close()
            if self._pidfd >= 0:
                with anyio.move_on_after(_END_GRACE_S):
                    await self._exited()
                if self.process.poll() is None:
                    self.kill()
                    await self._exited()
            self._release()
        return self.process.wait()

    def _release(self) -> None:
        """Close what is ours of a worker that has ended."""
        self.sock.close()
        self._either.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._stderr >= 0:
            self.last_words()
            os.close(self._stderr)
            self._stderr = -1

    async def _exited(self) -> None:
        while self.process.returncode is None:
            await anyio.wait_readable(self._pidfd)
            if self.takes_along:
                self._end_forks()
            self.process.poll()

    def _end_forks(self) -> None:
        """End what a worker has left that it had forked: CRIU's helpers wait for it for ever.

        It is not reaped yet, so its process group is still its own.
        """
        found = None
        with suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            self.kill()

    def abandon(self) -> None:
        """Kill and reap a worker that was asked for nothing yet."""
        self.kill()
        self.process.wait()
        self._release()

    def kill(self) -> None:
        """Kill the worker and all that it forked; `close` still has to reap it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
