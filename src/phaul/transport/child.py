"""A child that a channel goes through: started, listened to, always reaped.

Used on the source, for each ssh.
"""

import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from phaul.errors import SshMissing

__all__ = ["Child"]

_LINES: Final = 64
_LINE_BYTES: Final = 1000
_JOIN_S: Final = 2.0

# Ctrl-C goes to everything in the terminal's foreground, ssh included; but it has to live on, to
# tell the other side.  What is ignored stays so in what is executed, and a background process
# group, the other way, could not ask for a password.  Nothing of "$@" is read by the shell.
_SHIELD: Final = ("/bin/sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh")


class Child:
    """A running child whose standard input and output are `channel`, which it takes over.

    Raises SshMissing if it cannot be started.
    """

    def __init__(self, argv: Sequence[str], channel: socket.socket) -> None:
        self._said: deque[str] = deque(maxlen=_LINES)
        # A socket, not a pipe: to shut it down ends the reader, even if a child's child keeps it.
        self._errors, theirs = socket.socketpair()
        try:
            with channel, theirs:
                self._process = subprocess.Popen(
                    [*_SHIELD, *argv],
                    stdin=channel.fileno(),
                    stdout=channel.fileno(),
                    stderr=theirs.fileno(),
                )
        except OSError as error:
            self._errors.close()
            raise SshMissing(f"{argv[0]} cannot be started: {error.strerror}") from error
        self._reader = threading.Thread(target=self._listen, name="phaul-ssh", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its PID."""
        return self._process.pid

    def bytes_read(self) -> int | None:
        """What it has read so far, from whatever; None if the kernel does not say."""
        try:
            text = Path(f"/proc/{self._process.pid}/io").read_text()
        except OSError:
            return None
        fields = dict(line.split(": ", 1) for line in text.splitlines())
        return int(fields["rchar"])

    async def wait(self, timeout: float) -> int | None:
        """Its status, negative if a signal ended it; None if it runs on after `timeout`."""
        if self._process.returncode is None:
            try:
                handle = os.pidfd_open(self._process.pid)
            except ProcessLookupError:
                return self._process.wait()
            try:
                with anyio.move_on_after(timeout):
                    await anyio.wait_readable(handle)
            finally:
                anyio.notify_closing(handle)
                os.close(handle)
        return self._process.poll()

    async def end(self, grace: float) -> None:
        """Let it end within `grace` seconds, then make it; it is reaped.  May be called again."""
        with anyio.CancelScope(shield=True):
            # SIGTERM first: an ssh that asks for a password then mends the terminal.
            for limit, number in ((grace, signal.SIGTERM), (_JOIN_S, signal.SIGKILL)):
                if await self.wait(limit) is None:
                    self._process.send_signal(number)
            if self._process.returncode is None:
                await anyio.to_thread.run_sync(self._process.wait)
            with suppress(OSError):
                self._errors.shutdown(socket.SHUT_RDWR)
            await anyio.to_thread.run_sync(self._reader.join, _JOIN_S)
            self._errors.close()

    def abandon(self) -> None:
        """End and reap it without an event loop: it was started ahead of one that did not come."""
        # SIGTERM first, as in `end`.
        self._process.terminate()
        try:
            self._process.wait(_JOIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            self._errors.shutdown(socket.SHUT_RDWR)
        self._reader.join(_JOIN_S)
        self._errors.close()

    async def lines(self) -> list[str]:
        """The last lines that it wrote to standard error; for one that has ended, all of them."""
        if self._process.poll() is not None:
            await anyio.to_thread.run_sync(self._reader.join, _JOIN_S)
        return list(self._said)

    def _listen(self) -> None:
        rest = b""
        with suppress(OSError):
            while data := self._errors.recv(4096):
                *lines, rest = (rest + data).split(b"\n")
                self._said.extend(_text(line) for line in lines)
                rest = rest[-_LINE_BYTES:]
        if rest:
            self._said.append(_text(rest))


def _text(line: bytes) -> str:
    return line[:_LINE_BYTES].decode(errors="replace").rstrip("\r")
