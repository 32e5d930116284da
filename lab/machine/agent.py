"""The lab's agent: runs commands for the host.  Runs in the guest, started by its init.

Listens on the management interface alone, which only the host reaches.  A thread serves a
connection; see frames.py for the talk.  A command is killed when its connection ends.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time

TYPE_CHECKING = False  # what type checkers know by this name; `typing` takes 50 ms to import here
if TYPE_CHECKING:
    from typing import IO, Any

    from lab import frames
else:
    import frames  # beside this file, in the guest

BACKLOG_LIMIT = 4 << 20
"""Unread standard input that is kept; beyond it the host has to wait."""
PIPE_READ = 1 << 18
SYS_PERF_EVENT_OPEN = 298  # x86-64
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, PERF_ATTR_SIZE = 1, 9, 64
ADJ_SETOFFSET, ADJ_NANO = 0x0100, 0x2000


def status_of(code: int) -> int:
    """Turn a return code of `subprocess` into a shell's."""
    return code if code >= 0 else 128 - code


class Session:
    """One command: feeds it, passes its output on, and its status."""

    def __init__(self, sock: socket.socket, request: "dict[str, Any]") -> None:
        """Start the command, in a session of its own."""
        self.sock = sock
        self.backlog = bytearray()
        self.stdin_ended = False
        self.hung_up = False
        self.process = subprocess.Popen(
            request["argv"],
            cwd=request.get("cwd") or "/root",
            env={**os.environ, **(request.get("env") or {})},
            stdin=subprocess.PIPE if request.get("stdin") else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.stdin: IO[bytes] | None = self.process.stdin
        if self.stdin:
            os.set_blocking(self.stdin.fileno(), False)

    def signal(self, number: int) -> None:
        """Signal the command's process group; it is not yet reaped, so the PID is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def hear(self) -> None:
        """Take one frame of the host's."""
        try:
            kind, payload = frames.receive(self.sock)
        except OSError:
            kind, payload = b"", b""
        if kind == frames.STDIN:
            self.backlog += payload
            self.stdin_ended = not payload
            self.feed()
        elif kind == frames.SIGNAL:
            self.signal(int(payload))
        else:
            self.hung_up = True
            self.signal(signal.SIGKILL)

    def feed(self) -> None:
        """Give the command what it takes of its standard input."""
        if self.stdin is None:
            self.backlog.clear()
            return
        try:
            if self.backlog:
                del self.backlog[: os.write(self.stdin.fileno(), self.backlog[:PIPE_READ])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.backlog.clear()
            self.stdin_ended = True
        if self.stdin_ended and not self.backlog:
            self.stdin.close()
            self.stdin = None

    def tell(self, kind: bytes, payload: bytes) -> None:
        """Send a frame; a host that is gone ends the command."""
        if not self.hung_up:
            try:
                frames.send(self.sock, kind, payload)
            except OSError:
                self.hung_up = True
                self.signal(signal.SIGKILL)

    def run(self) -> None:
        """Serve until the command has ended and what it wrote is sent."""
        assert self.process.stdout
        assert self.process.stderr
        handle = os.pidfd_open(self.process.pid)
        outputs = {
            self.process.stdout.fileno(): frames.STDOUT,
            self.process.stderr.fileno(): frames.STDERR,
        }
        ended = False
        try:
            while outputs or not ended:
                poll = select.poll()
                for number in outputs:
                    poll.register(number, select.POLLIN)
                if not ended:
                    poll.register(handle, select.POLLIN)
                if not self.hung_up and len(self.backlog) < BACKLOG_LIMIT:
                    poll.register(self.sock, select.POLLIN)
                if self.stdin and self.backlog:
                    poll.register(self.stdin, select.POLLOUT)
                # Once it has ended, a child it left may hold the pipes open: do not wait for that.
                ready = dict(poll.poll(0 if ended else None))
                if ended and not any(number in ready for number in outputs):
                    break
                for number in [number for number in outputs if number in ready]:
                    data = os.read(number, PIPE_READ)
                    if data:
                        self.tell(outputs[number], data)
                    else:
                        del outputs[number]
                if self.stdin and self.stdin.fileno() in ready:
                    self.feed()
                if self.sock.fileno() in ready and not self.hung_up:
                    self.hear()
                ended = ended or handle in ready
        finally:
            os.close(handle)
            status = status_of(self.process.wait())
            for stream in (self.stdin, self.process.stdout, self.process.stderr):
                if stream:
                    stream.close()
        self.tell(frames.STATUS, str(status).encode())


def step_clock(nanoseconds: int) -> None:
    """Step CLOCK_REALTIME within the kernel.

    Reading it and setting the sum would lose the time between the two: 2 to 3 ms, measured.
    """
    import ctypes  # slow to import, and needed once a boot

    # struct timex: modes at 0, time.tv_sec at 72, time.tv_usec (here ns) at 80
    timex = bytearray(208)
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    struct.pack_into("=I", timex, 0, ADJ_SETOFFSET | ADJ_NANO)
    struct.pack_into("=qq", timex, 72, seconds, rest)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex((ctypes.c_char * len(timex)).from_buffer(timex)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")


def tell_time(sock: socket.socket) -> None:
    """Answer questions about the clock, and step it."""
    while True:
        kind, payload = frames.receive(sock)
        if not kind:
            return
        if kind == frames.STEP:
            step_clock(int(payload))
        frames.send(sock, frames.TIME, str(time.clock_gettime_ns(time.CLOCK_REALTIME)).encode())


def serve(sock: socket.socket) -> None:
    """Serve one connection."""
    with contextlib.suppress(OSError), sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind, payload = frames.receive(sock)
        if kind != frames.REQUEST:
            return
        request = json.loads(payload)
        if request.get("clock"):
            tell_time(sock)
            return
        try:
            session = Session(sock, request)
        except OSError as error:
            frames.send(sock, frames.STDERR, f"agent: {error}\n".encode())
            frames.send(sock, frames.STATUS, b"127")
            return
        session.run()


def keep_scheduler_unpatched() -> None:
    """Hold a perf event for ever, so that the kernel's scheduler is patched once, here, at boot.

    The first event of a machine, and the end of the last, rewrite instructions of the scheduler
    while the other processor runs them, and CRIU makes such an event for each breakpoint it sets.
    Seen without this, in one run of the tests on a busy host: five of six guests panicked, each in
    `__schedule`, at a place that is rewritten so.  Not seen since; no way to provoke it was found.
    """
    attributes = struct.pack("=IIQ48x", PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE, PERF_COUNT_SW_DUMMY)
    if ctypes.CDLL(None).syscall(SYS_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0) < 0:
        print("agent: no perf event: CRIU may make this emulated kernel panic", flush=True)


def main() -> None:
    """Serve for ever."""
    keep_scheduler_unpatched()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The address alone would not do: Linux accepts it on any interface.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"mgmt")
    listener.bind(("10.0.2.15", frames.PORT))
    listener.listen(64)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
