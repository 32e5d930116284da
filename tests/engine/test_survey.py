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
from phaul.subjects.dirty import dirty_rate, has_soft_dirty
from phaul.subjects.needs import needs
from phaul.subjects.survey import survey
from tests.engine.conftest import SLOW, StartVictim
from tests.engine.survey_cases import CASES, TCP

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


def refused(pid: int, found: Survey, wishes: Wishes, folder: Path) -> str:
    """Why the real CRIU does not dump it with the options wanted, "" if it does; left running."""
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
    log = (images / "dump.log").read_text(errors="replace")
    return log if done.returncode else ""


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
    log = refused(pid, found, case.wishes, tmp_path)
    assert case.refuses in log
    assert bool(case.refuses) == bool(log), log


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
            assert "External socket is used" in refused(pid, found, Wishes(), tmp_path)


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
        assert "without correspond master" in refused(pid, found, Wishes(), tmp_path)
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
    assert refused(pid, found, Wishes(), tmp_path) == ""


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


def test_a_tree_with_namespaces_of_its_own_is_looked_at_in_there(
    start: Start, criu: SourceCriu, tmp_path: Path
) -> None:
    pid = start(
        "os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS | os.CLONE_NEWUTS)\n"
        "got(libc.mount(b'none', b'/', None, 1 << 18 | 1 << 14, None))\n"
        "got(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None))\n"
        "f = open('/mnt/inside', 'w')\n"
        "os.mkdir('/mnt/watched'); fd = got(libc.inotify_init())\n"
        "got(libc.inotify_add_watch(fd, b'/mnt/watched', 2))\n"
        "l = socket.socket(socket.AF_UNIX); l.bind('/mnt/s'); l.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('/mnt/s'); a, _ = l.accept()\n"
        "t = socket.create_server(('0.0.0.0', 8080))"
    )
    found = survey(pid)
    assert found.own == ("mnt", "net", "uts")
    files = {file.path: file for file in found.files}
    assert (files["/mnt/inside"].fate, files["/mnt/inside"].mounted) == (Fate.THERE, True)
    assert [watch.path for watch in found.watches] == ["/mnt/watched"]
    assert {(socket.path, socket.peer) for socket in found.unix} == {
        ("/mnt/s", Peer.NONE),
        ("/mnt/s", Peer.INSIDE),
        ("", Peer.INSIDE),
    }
    assert [(socket.port, socket.state) for socket in found.inet] == [(8080, "LISTEN")]
    wanted = needs(found)
    assert not any(isinstance(need, AddressNeed) for need in wanted)
    assert [n.name for n in wanted if isinstance(n, ToolNeed)] == ["tar", "ip"]
    # What was opened before, outside: CRIU says "Can't lookup mount" to each.
    assert {n.check for n in nos(found, criu)} == {"files"}
    outside = {path for path, file in files.items() if not file.mounted}
    assert outside >= {f"{tmp_path}/log", "/dev/null"}


def test_how_fast_a_tree_changes_its_memory(victim: StartVictim) -> None:
    async def main() -> tuple[float | None, bool]:
        async with Workers(Engine()) as workers:
            tracked = (await workers.examine()).mem_track
        return await dirty_rate(pid, 1.0), tracked

    size = 16 << 20
    pid = victim("dirtier", "--size-mb", size >> 20, "--rate", 1000).pid
    rate, tracked = anyio.run(main)
    assert (rate is not None) == tracked == has_soft_dirty()
    assert rate is None or 0 < rate < 2 * size


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
    assert refused(pid, found, Wishes(), tmp_path) == ""
