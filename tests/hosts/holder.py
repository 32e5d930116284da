#!/usr/bin/env python3
"""holder: a victim that holds one thing of each kind asked for, and sees that it still has it.

    holder.py --report PATH THING[=VALUE]...        prints its PID; see tests/victims/README.md

The things are the methods of `Things`.  For the tests of what a migration refuses: the thing is
what is wrong, and the process is whole if it counts on and each thing is as it was.
"""

import argparse
import array
import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

BEAT_S = 0.005
SYS_IO_URING_SETUP, SYS_USERFAULTFD = 425, 323  # x86-64
IN_ALL_EVENTS = 0xFFF
_libc = ctypes.CDLL(None, use_errno=True)

Check = Callable[[], str]
"""What is wrong now; "" if nothing is."""


def _checked(value: int, what: str) -> int:
    if value < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return value


class Things:
    """What can be held: each method takes its value and returns the check of it."""

    def __init__(self) -> None:
        self.kept: list[object] = []
        self.jail = ""

    def _held(self, fd: int) -> Check:
        before = os.fstat(fd)

        def check() -> str:
            now = os.fstat(fd)
            same = now.st_mode == before.st_mode
            if not stat.S_ISSOCK(now.st_mode):  # a restored socket is a new one
                same = same and now.st_ino == before.st_ino
            return "" if same else f"descriptor {fd} is another file"

        return check

    def open(self, path: str) -> Check:
        """A file, to read it."""
        return self._held(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))

    def append(self, path: str) -> Check:
        """A file, to add to it."""
        return self._held(os.open(path, os.O_WRONLY | os.O_APPEND))

    def map(self, path: str) -> Check:
        """A file, mapped as a library is."""
        with Path(path).open("rb") as file:
            area = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        self.kept.append(area)
        before = bytes(area)
        return lambda: "" if bytes(area) == before else f"the mapping of {path} has changed"

    def cwd(self, path: str) -> Check:
        """A working directory."""
        os.chdir(path)
        return lambda: "" if Path.cwd() == Path(path) else "the working directory has changed"

    def root(self, path: str) -> Check:
        """A root directory; give it last."""
        self.jail = path
        os.chroot(path)
        os.chdir("/")
        inside = os.stat("/").st_ino  # noqa: PTH116 (no pathlib in a jail)
        return lambda: "" if os.stat("/").st_ino == inside else "another root"  # noqa: PTH116

    def thread(self, _value: str) -> Check:
        """A second thread."""
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        return lambda: "" if thread.is_alive() else "the thread is gone"

    def child(self, _value: str) -> Check:
        """A child, which leads a process group of its own."""
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 1000)
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while True:
                signal.pause()
        self.kept.append(pid)
        return lambda: "" if os.waitpid(pid, os.WNOHANG) == (0, 0) else f"child {pid} ended"

    def listen(self, address: str) -> Check:
        """A listening TCP socket, ADDRESS:PORT."""
        host, _, port = address.rpartition(":")
        sock = socket.create_server((host, int(port)))
        self.kept.append(sock)
        return self._held(sock.fileno())

    def udp(self, address: str) -> Check:
        """A UDP socket, ADDRESS:PORT."""
        host, _, port = address.rpartition(":")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, int(port)))
        self.kept.append(sock)
        return self._held(sock.fileno())

    def connect(self, address: str) -> Check:
        """An established TCP connection to ADDRESS:PORT."""
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host, int(port)), 10)
        self.kept.append(sock)

        def check() -> str:
            try:
                sock.getpeername()
            except OSError as error:
                return f"the connection: {error}"
            return ""

        return check

    def unix(self, path: str) -> Check:
        """A unix stream connected to a listener of another process."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self.kept.append(sock)
        return self._held(sock.fileno())

    def netlink(self, _value: str) -> Check:
        """A netlink socket that has asked something whose answer nobody has read."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        sock.bind((0, 0))
        # RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, and an empty ifinfomsg
        words = array.array("I", [32, 18 | 0x301 << 16, 1, 0, 0, 0, 0, 0])
        sock.send(words.tobytes())
        self.kept.append(sock)
        return self._held(sock.fileno())

    def family(self, number: str) -> Check:
        """A socket of a family, TYPE and protocol: FAMILY,TYPE,PROTOCOL in numbers."""
        sock = socket.socket(*(int(word) for word in number.split(",")))
        self.kept.append(sock)
        return self._held(sock.fileno())

    def packet(self, _value: str) -> Check:
        """A packet socket."""
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        self.kept.append(sock)
        return self._held(sock.fileno())

    def raw(self, _value: str) -> Check:
        """A raw socket."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
        self.kept.append(sock)
        return self._held(sock.fileno())

    def userfaultfd(self, _value: str) -> Check:
        """A userfaultfd."""
        return self._held(_checked(_libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC), "userfaultfd"))

    def io_uring(self, _value: str) -> Check:
        """An io_uring."""
        params = (ctypes.c_char * 120)()
        fd = _libc.syscall(SYS_IO_URING_SETUP, 8, params)
        return self._held(_checked(fd, "io_uring_setup"))

    def inotify(self, path: str) -> Check:
        """An inotify watch."""
        fd = _checked(_libc.inotify_init1(os.O_CLOEXEC), "inotify_init1")
        _checked(_libc.inotify_add_watch(fd, path.encode(), IN_ALL_EVENTS), "inotify_add_watch")
        return self._held(fd)

    def unlinked(self, value: str) -> Check:
        """An unlinked file: PATH,BYTES."""
        path, _, size = value.partition(",")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, b"x" * int(size))
        Path(path).unlink()
        right = stat.S_IFREG | 0o600, int(size)

        def check() -> str:
            now = os.fstat(fd)
            return "" if (now.st_mode, now.st_size) == right else "the unlinked file has changed"

        return check

    def lock(self, path: str) -> Check:
        """A file with a lock on it."""
        fd = os.open(path, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return self._held(fd)

    def locked(self, size: str) -> Check:
        """Locked memory, in bytes."""
        area = mmap.mmap(-1, int(size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        where = ctypes.addressof(ctypes.c_char.from_buffer(area))
        _checked(_libc.mlock(ctypes.c_void_p(where), ctypes.c_size_t(int(size))), "mlock")
        area[:5] = b"right"
        self.kept.append(area)
        return lambda: "" if area[:5] == b"right" else "the locked memory has changed"

    def terminal(self, path: str) -> Check:
        """A terminal that another process has made, as the controlling one."""
        return self._held(os.open(path, os.O_RDWR))  # a session leader without one gets it by this


class Holder:
    """Counts, and answers SIGUSR1 with a report."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self.things = Things()
        self.checks: dict[str, Check] = {}
        self.counter = self.reports = 0
        self.asked = self.ended = False
        self.last_ns = time.time_ns()
        self.max_gap_ns = 0

    def hold(self, words: list[str]) -> None:
        """Take everything; OSError if that cannot be."""
        for word in words:
            name, _, value = word.partition("=")
            self.checks[word] = getattr(self.things, name)(value)

    def problems(self) -> list[str]:
        """What is not as it was."""
        found = []
        for word, check in self.checks.items():
            try:
                problem = check()
            except OSError as error:
                problem = str(error)
            found += [f"{word}: {problem}"] if problem else []
        return found

    def answer(self) -> None:
        """Write the report, as a whole."""
        problems = self.problems()
        self.reports += 1
        data = {
            "victim": "holder", "pid": os.getpid(), "report": self.reports, "ok": not problems,
            "rt_ns": time.time_ns(), "problems": problems, "problem_count": len(problems),
            "counter": self.counter, "max_gap_ms": self.max_gap_ns / 1e6, "gaps": [],
        }  # fmt: skip
        self.max_gap_ns = 0
        path = str(self.report).removeprefix(self.things.jail)
        with open(f"{path}.tmp", "w") as file:  # noqa: PTH123 (no pathlib in a jail)
            json.dump(data, file)
        os.replace(f"{path}.tmp", path)  # noqa: PTH105
        self.last_ns = time.time_ns()

    def run(self) -> None:
        """Beat until SIGTERM."""
        while not self.ended:
            time.sleep(BEAT_S)
            now = time.time_ns()
            self.max_gap_ns = max(self.max_gap_ns, now - self.last_ns)
            self.last_ns = now
            self.counter += 1
            if self.asked:
                self.asked = False
                self.answer()

    def on_signal(self, number: int, _frame: object) -> None:
        """Note what is wanted."""
        if number == signal.SIGUSR1:
            self.asked = True
        else:
            self.ended = True


def main() -> int:
    """Go to the background, take the things, say the PID."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("things", nargs="*")
    arguments = parser.parse_args()
    ready, say = os.pipe()
    if pid := os.fork():
        os.close(say)
        with os.fdopen(ready) as file:
            error = file.read()
        if error != "ready":
            print(error, file=sys.stderr)
            return 1
        print(pid)
        return 0
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    os.close(ready)
    os.dup2(say, 900)
    os.closerange(3, 900)
    holder = Holder(arguments.report)
    signal.signal(signal.SIGUSR1, holder.on_signal)
    signal.signal(signal.SIGTERM, holder.on_signal)
    try:
        holder.hold(arguments.things)
    except (OSError, ValueError) as error:
        os.write(900, f"{error}".encode())
        return 1
    os.write(900, b"ready")
    os.close(900)
    holder.run()
    for child in (thing for thing in holder.things.kept if isinstance(thing, int)):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
