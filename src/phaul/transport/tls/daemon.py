"""The destination's daemon: it accepts connections, and starts a process for each.

Used by `phaul serve`.  It reads not one byte of any of them: what comes from the network is touched
only by processes that end with their connection.  One that has not said in time that it was let in
is killed, so that whoever may not come in can fill no more than a few places.

The daemon itself can end at any time: the processes have sessions of their own, and go on.  An
agent in the midst of a migration keeps its own rules, so there is nothing that a daemon would have
to finish for it.
"""

import errno
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskGroup

from phaul.transport.tls.greeting import Purpose

__all__ = ["Daemon", "Limits"]

_log: Final = logging.getLogger("phaul.serve")

_CONNECTION_FD: Final = 3
_REPORT_FD: Final = 4
_OUT_OF_THE_WAY: Final = 16
_PAUSE_S: Final = 0.5
_CONTROL: Final = Purpose.CONTROL.value[:1].encode()


@dataclass(frozen=True)
class Limits:
    """How many processes there may be at once, of those that were not let in yet and in all.

    `unknown_s` is the time in seconds after which one of the former is killed; it ends itself
    earlier, if it is well.
    """

    unknown: int = 16
    most: int = 64
    unknown_s: float = 20.0


class Daemon:
    """Accepts from `listeners`, which it owns, and starts `command` for each connection.

    `command` is `phaul agent`, with the path of its program, and what it needs as arguments; it
    gets `--connection FD --report FD`.  With `once` the daemon ends with the first agent that was
    let in.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        once: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self._listeners = listeners
        self._command = command
        self._environment = dict(environment)
        self._once = once
        self._limits = limits or Limits()

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, SIGINT, or `once` is over.  Only in the main thread.

        `ready` is called when it accepts.  Children that run on are left to run.
        """
        self._over = anyio.Event()
        self._unknown = anyio.Semaphore(self._limits.unknown)
        self._places = anyio.Semaphore(self._limits.most)
        try:
            async with anyio.create_task_group() as tasks:
                with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

                    async def on_signal() -> None:
                        async for number in signals:
                            _log.info("%s: no more connections", signal.Signals(number).name)
                            self._over.set()

                    tasks.start_soon(on_signal)
                    for listener in self._listeners:
                        listener.setblocking(False)
                        tasks.start_soon(self._accept, listener, tasks)
                    ready()
                    await self._over.wait()
                    tasks.cancel_scope.cancel()
        finally:
            for listener in self._listeners:
                listener.close()

    async def _accept(self, listener: socket.socket, tasks: TaskGroup) -> None:
        while True:
            # Without a place nobody is accepted: who may come in waits in the kernel's queue.
            await self._places.acquire()
            await self._unknown.acquire()
            child = await self._next(listener)
            tasks.start_soon(self._mind, child)

    async def _next(self, listener: socket.socket) -> "_Child":
        while True:
            await anyio.wait_readable(listener)
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                _log.warning("a connection was not accepted: %s", error.strerror)
                if error.errno != errno.ECONNABORTED:
                    await anyio.sleep(_PAUSE_S)
                continue
            try:
                with sock:
                    return _Child(sock, f"{address[0]}", self._command, self._environment)
            except OSError as error:
                _log.warning("no process for %s: %s", address[0], error.strerror)
                await anyio.sleep(_PAUSE_S)

    async def _mind(self, child: "_Child") -> None:
        """See a child through, and reap it."""
        try:
            said = b""
            with anyio.move_on_after(self._limits.unknown_s) as limit:
                said = await child.report()
            if limit.cancelled_caught:
                _log.warning("%s, PID %d: killed, it took too long", child.who, child.pid)
                child.kill()
            if said:
                self._unknown.release()
                _log.info("%s, PID %d: let in", child.who, child.pid)
            status = await child.wait()
            if not said:
                self._unknown.release()
            level = logging.INFO if status == 0 else logging.WARNING
            _log.log(level, "%s, PID %d: ended with status %d", child.who, child.pid, status)
            self._places.release()
            if self._once and said == _CONTROL:
                self._over.set()
        finally:
            child.let_go()


class _Child:
    """The process of a connection; raises OSError if it cannot be started."""

    def __init__(
        self, sock: socket.socket, who: str, command: Sequence[str], environment: dict[str, str]
    ) -> None:
        self.who = who
        self._descriptors: list[int] = []
        self._report, writer = os.pipe()
        self._descriptors.append(self._report)
        ours = [writer]
        try:
            # Above all targets of the dup2: none may close what another still needs.
            ours.append(_out_of_the_way(sock.fileno()))
            ours.append(_out_of_the_way(writer))
            self.pid = os.posix_spawn(
                command[0],
                [*command, "--connection", str(_CONNECTION_FD), "--report", str(_REPORT_FD)],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    # Nothing that prints can reach the caller of `phaul serve`.
                    (os.POSIX_SPAWN_DUP2, 2, 1),
                    (os.POSIX_SPAWN_DUP2, ours[1], _CONNECTION_FD),
                    (os.POSIX_SPAWN_DUP2, ours[2], _REPORT_FD),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
            self._handle = os.pidfd_open(self.pid)
            self._descriptors.append(self._handle)
        except BaseException:
            self.let_go()
            raise
        finally:
            for descriptor in ours:
                os.close(descriptor)

    async def report(self) -> bytes:
        """What it says that the connection is; empty if it ends without a word."""
        await anyio.wait_readable(self._report)
        return os.read(self._report, 1)

    async def wait(self) -> int:
        """Wait for its end and reap it; returns the status, negative for a signal."""
        await anyio.wait_readable(self._handle)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def let_go(self) -> None:
        """Close what is ours; the process goes on.  May be called again."""
        while self._descriptors:
            descriptor = self._descriptors.pop()
            anyio.notify_closing(descriptor)
            os.close(descriptor)


def _out_of_the_way(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
