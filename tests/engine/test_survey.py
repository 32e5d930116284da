"""Real processes that have what can be in the way: found by the survey, judged, and CRIU agrees.

Each is dumped by the real CRIU too, with the options that the plan wants, and left running: what is
judged to be in the way must be in its way, and what is not, not.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from phaul.criu.engine import Engine
from phaul.criu.workers import Workers
from phaul.facts import Fate, Peer, Survey
from phaul.plan import Tcp, Wishes
from phaul.plan.judge import judge
from phaul.plan.options import options_for
from phaul.plan.sourcecriu import SourceCriu
from phaul.protocol.preflight import AddressNeed, FileNeed, Finding, Level, PidsNeed, ToolNeed
from phaul.subjects.needs import needs
from phaul.subjects.survey import survey
from tests.engine.conftest import SLOW, StartVictim

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120 * SLOW)]

BEFORE = """
import ctypes, fcntl, mmap, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
here = sys.argv[1]
def got(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
"""
AFTER = """
open(here + "/ready", "w").close()
time.sleep(600)
"""

Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program that has something, in a session of its own, and ends it."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str, *, session: bool = True, stdin: int = subprocess.DEVNULL) -> int:
        # Above what a fresh PID namespace gives its own processes.
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(3000 + 100 * len(started)))
        log = tmp_path / "log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", BEFORE + code + AFTER, str(tmp_path)],
                stdin=stdin,
                stdout=file,
                stderr=file,
                start_new_session=session,
                cwd="/",
            )
        started.append(process)
        ready = tmp_path / "ready"
        until = time.monotonic() + 30 * SLOW
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        ready.unlink()
        return process.pid

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def criu() -> SourceCriu:
    async def ask() -> SourceCriu:
        async with Workers(Engine()) as workers:
            version = (await workers.examine()).version
        return SourceCriu.on((version.major, version.minor, version.sublevel), os.uname().release)

    return anyio.run(ask)


def dumps(pid: int, found: Survey, wishes: Wishes, folder: Path) -> bool:
    """Whether the real CRIU dumps it with the options wanted; it is left running."""
    wanted = options_for(found, wishes)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    options = {
        "--shell-job": wanted.shell_job,
        "--tcp-established": wanted.tcp_established,
        "--tcp-close": wanted.tcp_close,
        "--skip-in-flight": wanted.tcp_skip_in_flight,
        "--file-locks": wanted.file_locks,
        "--link-remap": wanted.link_remap,
    }
    words = ["criu", "dump", "--leave-running", "-t", str(pid), "-D", str(images), "-o", "dump.log"]
    words += ["--network-lock", "nftables", *(name for name, on in options.items() if on)]
    if wanted.ghost_limit:
        words += ["--ghost-limit", str(wanted.ghost_limit)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=60 * SLOW)
    assert Path(f"/proc/{pid}").exists(), "left running"
    return done.returncode == 0


@dataclass(frozen=True)
class Case:
    """What a program has, what is to be found of it, and whether CRIU takes it."""

    code: str
    check: str
    level: Level
    said: str
    dumps: bool
    wishes: Wishes = Wishes()  # noqa: RUF009 -- it is frozen


TCP = """
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
"""
GHOST = """
file = open(here + "/ghost", "w+b")
file.write(os.urandom(3 << 20))
file.flush()
os.unlink(here + "/ghost")
"""
CASES = {
    "tcp": Case(TCP, "tcp", Level.NO, "2 established TCP connections: 127.0.0.1:", False),
    "tcp kept": Case(TCP, "tcp", Level.OK, "taken along", True, Wishes(tcp=Tcp.KEEP)),
    "tcp closed": Case(TCP, "tcp", Level.OK, "closed", True, Wishes(tcp=Tcp.CLOSE)),
    "listener": Case(
        "s = socket.create_server(('0.0.0.0', 0))", "tcp", Level.OK, "no established", True
    ),
    "udp": Case(
        "s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
        "sockets", Level.OK, "1 socket", True,
    ),
    "unix pair": Case("a, b = socket.socketpair()", "unix", Level.OK, "2 unix sockets", True),
    "unix, closed by the other": Case(
        "a, b = socket.socketpair(); b.close()", "unix", Level.OK, "1 unix socket", True
    ),
    "unix, not accepted yet": Case(
        "l = socket.socket(socket.AF_UNIX); l.bind(here + '/s'); l.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect(here + '/s')",
        "unix", Level.OK, "2 unix sockets", True,
    ),
    "netlink": Case(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 1))",
        "sockets", Level.OK, "1 socket", True,
    ),
    "netlink, a high group": Case(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0))\n"
        "s.setsockopt(270, 1, 33)",
        "sockets", Level.NO, "group 33", False,
    ),
    "packet": Case(
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "sockets", Level.OK, "1 socket", True,
    ),
    "vsock": Case(
        "s = socket.socket(socket.AF_VSOCK)", "sockets", Level.NO, "AF_VSOCK", False
    ),
    "mptcp": Case(
        "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
        "sockets", Level.NO, "MPTCP", False,
    ),
    "io_uring": Case(
        "ring = got(libc.syscall(425, 8, ctypes.create_string_buffer(120)))",
        "descriptors", Level.NO, "io_uring", False,
    ),
    "userfaultfd": Case(
        "fd = got(libc.syscall(323, 0))", "descriptors", Level.NO, "userfaultfd", False
    ),
    "perf event": Case(
        "event = bytearray(128); event[0] = 1; event[4] = 128\n"
        "fd = got(libc.syscall(298, (ctypes.c_char * 128).from_buffer(event), 0, -1, -1, 0))",
        "descriptors", Level.NO, "perf event", False,
    ),
    "pidfd of its own": Case(
        "fd = os.pidfd_open(os.getpid())", "descriptors", Level.OK, "1 other", True
    ),
    "pidfd of another": Case(
        "fd = os.pidfd_open(os.getppid())", "descriptors", Level.NO, "outside of the tree", False
    ),
    "harmless ones": Case(
        "import select\nfds = [os.eventfd(0), select.epoll(), os.memfd_create('x'), os.pipe()]",
        "descriptors", Level.OK, "3 other descriptors", True,
    ),
    "a packet pipe": Case(
        "fds = os.pipe2(os.O_DIRECT)", "descriptors", Level.NO, "packet mode", False
    ),
    "inotify": Case(
        "fd = got(libc.inotify_init())\ngot(libc.inotify_add_watch(fd, here.encode(), 2))",
        "inotify", Level.OK, "1 watch", True,
    ),
    "inotify of what was removed": Case(
        "kept = open(here + '/w', 'w'); fd = got(libc.inotify_init())\n"
        "got(libc.inotify_add_watch(fd, (here + '/w').encode(), 2))\nos.unlink(here + '/w')",
        "inotify", Level.NO, "not to be found", False,
    ),
    "fanotify": Case(
        "fd = got(libc.fanotify_init(0, 0))\n"
        "got(libc.fanotify_mark(fd, 1, ctypes.c_uint64(2), -100, here.encode()))",
        "inotify", Level.OK, "1 watch", True,
    ),
    "unlinked": Case(GHOST, "unlinked", Level.NO, "3.0 MiB", False),
    "unlinked, allowed": Case(
        GHOST, "unlinked", Level.NO, "3.0 MiB", True, Wishes(allow=frozenset({"unlinked"}))
    ),
    "unlinked, small": Case(
        "f = open(here + '/x', 'w'); os.unlink(here + '/x')",
        "unlinked", Level.OK, "1 unlinked", True,
    ),
    "renamed over": Case(
        "f = open(here + '/x', 'w'); os.rename(here + '/x', here + '/y'); os.link(here + '/y', "
        "here + '/z'); g = open(here + '/y'); os.unlink(here + '/y')",
        # CRIU makes the link that the restore needs, here; another machine does not have it.
        "unlinked", Level.NO, "has another one", True,
    ),
    "flock": Case(
        "f = open(here + '/l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
        "locks", Level.OK, "1 file lock", True,
    ),
    "posix lock": Case(
        "f = open(here + '/l', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)",
        "locks", Level.OK, "1 file lock", True,
    ),
    "a terminal of its own": Case("fds = os.openpty()", "terminal", Level.OK, "own session", True),
    "a master alone": Case(
        "m, s = os.openpty(); os.close(s)", "terminal", Level.OK, "own session", True
    ),
    "devices": Case(
        "fds = [os.open('/dev/' + n, os.O_RDONLY) for n in ('null', 'zero', 'full', 'urandom')]",
        "devices", Level.OK, "/dev/full, /dev/null, /dev/urandom, /dev/zero", True,
    ),
    "locked memory": Case(
        "m = mmap.mmap(-1, 1 << 20)\n"
        "got(libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(m)), ctypes.c_size_t(1 << 20)))",
        "locked", Level.WARNING, "1.0 MiB of locked memory", True,
    ),
    "system v memory": Case(
        "libc.shmat.restype = ctypes.c_void_p\n"
        "n = got(libc.shmget(0, 4096, 0o1600)); p = libc.shmat(n, None, 0)\n"
        "got(libc.shmctl(n, 0, None))",
        "namespaces", Level.NO, "System V", False,
    ),
    "a nested namespace": Case(
        "import signal\nif os.fork() == 0:\n    os.unshare(os.CLONE_NEWUTS); signal.pause()\n"
        "time.sleep(0.2)",
        "namespaces", Level.NO, "another uts namespace", False,
    ),
    "a removed working directory": Case(
        "os.mkdir(here + '/gone'); os.chdir(here + '/gone'); os.rmdir(here + '/gone')",
        "directories", Level.WARNING, "was removed", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_it_is_found_and_criu_agrees(
    name: str, start: Start, criu: SourceCriu, tmp_path: Path
) -> None:
    case = CASES[name]
    pid = start(case.code)
    found = survey(pid)
    judged = judge(found, case.wishes, criu)
    matching = [f for f in judged if f.check == case.check and f.level is case.level]
    assert any(case.said in f.what for f in matching), judged
    worse = [f for f in judged if f.level is Level.NO and f not in matching]
    assert worse == []
    needs(found)
    log = tmp_path / "images" / "dump.log"
    assert dumps(pid, found, case.wishes, tmp_path) is case.dumps, log.read_text()


def test_a_unix_socket_to_outside_and_whose_it_is(
    start: Start, criu: SourceCriu, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "outside"))
        listener.listen()
        pid = start("s = socket.socket(socket.AF_UNIX); s.connect(here + '/outside')")
        accepted, _ = listener.accept()
        with accepted:
            found = survey(pid)
            (no,) = nos(found, criu)
            assert no.check == "unix"
            assert f"{tmp_path}/outside" in no.what
            assert f"PID {os.getpid()}" in no.what
            assert found.unix[0].peer is Peer.OUTSIDE
            assert not dumps(pid, found, Wishes(), tmp_path)


def nos(found: Survey, criu: SourceCriu, wishes: Wishes | None = None) -> list[Finding]:
    return [f for f in judge(found, wishes or Wishes(), criu) if f.level is Level.NO]


def test_a_terminal_from_outside(start: Start, criu: SourceCriu, tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        pid = start("", stdin=slave)
        found = survey(pid)
        (no,) = nos(found, criu)
        assert (no.check, os.ttyname(slave) in no.what) == ("terminal", True)
        assert "setsid" in no.remedy
        assert not dumps(pid, found, Wishes(), tmp_path)
    finally:
        os.close(master)
        os.close(slave)


def test_a_session_of_others_is_joined_over_there(
    start: Start, criu: SourceCriu, tmp_path: Path
) -> None:
    pid = start("", session=False)
    found = survey(pid)
    assert nos(found, criu) == []
    (warning,) = [f for f in judge(found, Wishes(), criu) if f.check == "terminal"]
    assert warning.level is Level.WARNING
    assert options_for(found, Wishes()).shell_job
    assert [n.pids for n in needs(found) if isinstance(n, PidsNeed)] == [(pid,)]
    assert dumps(pid, found, Wishes(), tmp_path)


def test_pipes_to_outside(start: Start, criu: SourceCriu) -> None:
    reading, writing = os.pipe()
    try:
        (no,) = nos(survey(start("", stdin=writing)), criu)
        assert "SIGPIPE" in no.what
        found = judge(survey(start("", stdin=reading)), Wishes(), criu)
        assert [f.level for f in found if f.check == "descriptors"] == [Level.WARNING]
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_that_is_open_for_appending_may_grow(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("abc")
    pid = start("a = open(here + '/log2', 'a'); b = open(here + '/data', 'r+b')")
    sizes = {n.path: n.size for n in needs(survey(pid)) if isinstance(n, FileNeed)}
    assert sizes[f"{tmp_path}/log2"] is None
    assert sizes[f"{tmp_path}/data"] == 3


def test_what_established_connections_need(start: Start) -> None:
    found = survey(start(TCP))
    addresses = [n for n in needs(found) if isinstance(n, AddressNeed)]
    assert {(n.address, n.listening) for n in addresses} == {
        ("127.0.0.1", True),
        ("127.0.0.1", False),
    }
    assert [n.name for n in needs(found) if isinstance(n, ToolNeed)] == ["nft"]


def test_a_connection_to_a_process_that_stays_here(start: Start, criu: SourceCriu) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        pid = start(f"s = socket.create_connection(('127.0.0.1', {port}))")
        accepted, _ = listener.accept()
        with accepted:
            (no,) = nos(survey(pid), criu, Wishes(tcp=Tcp.KEEP))
            assert "stays here" in no.what


def test_a_tree_whose_processes_come_and_go_can_be_surveyed(start: Start) -> None:
    pid = start(
        "import signal, subprocess\n"
        "for _ in range(4):\n"
        "    subprocess.Popen(['sh', '-c', 'while :; do true & wait; done'],"
        " stdin=subprocess.DEVNULL, start_new_session=True)\n"
    )
    try:
        for _ in range(20):
            found = survey(pid)
            assert found.root_process.pid == pid
            assert len(found.processes) >= 5
    finally:
        for process in survey(pid).processes[1:]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.parametrize(
    "words",
    [("tree", "--dir"), ("dirtier", "--kinds", "private,shared,file", "--file"), ("pyheap.py",)],
)
def test_a_tree_that_can_be_moved_gets_no_no(
    words: tuple[str, ...], victim: StartVictim, criu: SourceCriu, tmp_path: Path
) -> None:
    options: list[object] = list(words[1:])
    if words[0] == "tree":
        options.append(tmp_path)
    elif words[0] == "dirtier":
        options.append(tmp_path / "mapped")
    pid = victim(words[0], *options).pid
    found = survey(pid)
    assert nos(found, criu) == []
    assert all(file.fate is Fate.THERE for file in found.files if file.use != "open")
    assert found.memory.private > 0
    assert needs(found)
    assert dumps(pid, found, Wishes(), tmp_path)
