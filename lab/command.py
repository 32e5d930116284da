"""A command that runs in a guest, as the host sees it.  Runs on the host."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

from . import frames
from .errors import ConnectionLostError, DeadlineError
from .stream import Stream

CONNECT_TIMEOUT = 5.0
_CLOSE_TIMEOUT = 10.0


def connect(port: int, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """Connect to a guest's agent through QEMU's forwarded port."""
    sock = socket.create_connection(("127.0.0.1", port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Command:
    """A running command: its streams, its status, and the means to end it.

    Leaving it as a context manager kills what still runs.  One thread of its own receives.
    """

    def __init__(
        self,
        where: str,
        sock: socket.socket,
        argv: Sequence[str],
        *,
        stdin: bool,
        cwd: str | None,
        env: Mapping[str, str] | None,
        explain: Callable[[str], str],
    ) -> None:
        """Start it over a fresh connection, which it owns from now on."""
        self.where = where
        self.argv = tuple(str(word) for word in argv)
        self.status: int | None = None
        """Its exit status, 128 + N for signal N; None while it runs."""
        name = f"{where}: {' '.join(self.argv)!r}"
        self.stdout = Stream(f"{name}, standard output")
        self.stderr = Stream(f"{name}, standard error")
        self._name = name
        self._sock = sock
        self._explain = explain
        self._error: ConnectionLostError | None = None
        self._send_lock = threading.Lock()
        self._ended = threading.Event()
        request = {"argv": self.argv, "cwd": cwd, "env": dict(env or {}), "stdin": stdin}
        try:
            frames.send(sock, frames.REQUEST, json.dumps(request).encode())
            sock.settimeout(None)  # a command may be silent; whoever waits for it has a deadline
        except OSError as error:
            sock.close()
            raise ConnectionLostError(explain(f"{name}: could not be sent: {error}")) from error
        self._thread = threading.Thread(target=self._receive, daemon=True, name=name)
        self._thread.start()

    def _receive(self) -> None:
        lost = "the agent closed the connection"
        try:
            while True:
                kind, payload = frames.receive(self._sock)
                if kind == frames.STDOUT:
                    self.stdout.feed(payload)
                elif kind == frames.STDERR:
                    self.stderr.feed(payload)
                elif kind == frames.STATUS:
                    self.status = int(payload)
                    break
                else:
                    break
        except OSError as error:
            lost = str(error)
        if self.status is None:
            self._error = ConnectionLostError(self._explain(f"{self._name}: no status: {lost}"))
        self.stdout.end(self._error)
        self.stderr.end(self._error)
        self._ended.set()

    def write(self, data: bytes) -> int:
        """Write to its standard input (`stdin=True` at the start).

        Raises:
            ConnectionLostError: the guest is gone.  A command that ended or closed its standard
                input is no error: the rest is thrown away, and its status tells.
        """
        for begin in range(0, len(data), frames.CHUNK):
            self._send(frames.STDIN, data[begin : begin + frames.CHUNK])
        return len(data)

    def close_stdin(self) -> None:
        """End its standard input."""
        self._send(frames.STDIN, b"")

    def signal(self, number: int) -> None:
        """Signal its process group."""
        self._send(frames.SIGNAL, str(int(number)).encode())

    def _send(self, kind: bytes, payload: bytes) -> None:
        if self.status is not None:
            return
        try:
            with self._send_lock:
                frames.send(self._sock, kind, payload)
        except OSError as error:
            # The agent closes as soon as the command has ended; its status may be on the way.
            self._ended.wait(_CLOSE_TIMEOUT)
            if self.status is None:
                raise self._error or ConnectionLostError(
                    self._explain(f"{self._name}: {error}")
                ) from error

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until it ends; return its status.

        Raises:
            DeadlineError: it runs on.
            ConnectionLostError: the guest is gone.
        """
        if not self._ended.wait(timeout):
            raise DeadlineError(f"{self._name}: still running after {timeout:.1f} s")
        if self.status is None:
            assert self._error
            raise self._error
        return self.status

    @property
    def running(self) -> bool:
        """Whether its end has not been heard of."""
        return not self._ended.is_set()

    def kill(self, timeout: float = 10.0) -> int:
        """Kill its process group; return its status."""
        self.signal(signal.SIGKILL)
        return self.wait(timeout)

    def close(self) -> None:
        """Close the connection; the agent kills what still runs."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(_CLOSE_TIMEOUT)
        self._sock.close()

    def __enter__(self) -> "Command":
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()
