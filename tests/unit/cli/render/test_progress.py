import io
import os
import re
import sys

import pexpect
import pytest

from phaul.cli.render.progress import make_progress
from phaul.report import Failed, Finished
from tools.sample import REPORT, events

PIPE = """\
migration k3v9, to root@beta
connected to beta: phaul 0.2.0, criu 4.2.1, Linux 6.12.57
warning   clock   beta     is 2.3 s behind the source
                           > start a time service on both hosts: timers of the process will jump
warning   thp     source   1.2 GiB of the memory is in transparent huge pages
                           > --thp off, or echo madvise > /sys/kernel/mm/transparent_hugepage/enabled
checks    7 ok, 2 warnings
plan      pre-copy: the kernel tracks dirty memory
memory    3.00 GiB, of it 128 MiB shared, which only the final dump sends
speed     dirties 9.7 MiB/s, the way there takes 112 MiB/s
expected  5 rounds, downtime about 310 ms, about 34.0 s in all
because   the dirty rate was measured for 2 s; the bandwidth was measured with 64 MiB; \
restoring took 140 ms for a process like this one
moving postgres, PID 4242
round 0   2.94 GiB    110 MiB/s   dirtied  9.7 MiB/s   downtime now about 2.74 s
round 1    258 MiB    107 MiB/s   dirtied 10.4 MiB/s   downtime now about 520 ms
round 2   42.1 MiB    103 MiB/s   dirtied  9.1 MiB/s   downtime now about 360 ms
round 3    9.8 MiB   75.4 MiB/s   dirtied  8.8 MiB/s   downtime now about 290 ms
round 4    3.1 MiB   34.5 MiB/s   dirtied  9.2 MiB/s   downtime now about 270 ms
cutover   a cutover now costs about 270 ms, and 300 ms are allowed
cutover   the process is being frozen and dumped
cutover   gone from here; it is beta's now
"""  # noqa: E501 -- a line in a pipe is as long as it is
TOLD = [line for line in PIPE.splitlines() if line.startswith(("round", "plan", "warning"))]


def told(*, verbose: int = 0, quiet: bool = False, terminal: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    with make_progress(stream, quiet=quiet, verbose=verbose, terminal=terminal) as progress:
        for event in events():
            progress.on_event(event)
        progress.line("a line of a log")
    return raw.getvalue().decode()


def test_a_pipe() -> None:
    text = told()
    assert text == PIPE + "a line of a log\n"
    assert text.replace("\n", "").isprintable()


def test_verbose() -> None:
    text = told(verbose=1)
    assert "ok        cpu        beta     has all 74 features" in text
    assert "frozen 61 ms   took 27.3 s   2.95 GiB on the wire" in text
    assert "cutover   running on beta, PID 4242" in text
    assert "round 0 begins" not in text
    assert "round 0 begins" in told(verbose=2)


def test_quiet() -> None:
    assert told(quiet=True) == ""


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    text = told(terminal=True)
    assert bool(re.search(r"\x1b\[[\d;]*m", text)) is not no_color
    assert "Ctrl-C cancels" in text
    assert "\u2501" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", text)
    for line in TOLD:
        assert line in plain
    assert "a line of a log" in plain


def test_while_the_host_is_reached_ssh_has_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    with make_progress(stream, quiet=False, verbose=0, terminal=True) as progress:
        progress.on_event(next(events()))
    assert raw.getvalue() == b"migration k3v9, to root@beta\n"


def test_a_terminal_that_can_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = told(terminal=True)
    assert "\x1b" not in text
    assert "\r" not in text
    assert TOLD[0] in text


def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    long = [line for line in told(terminal=True).splitlines() if len(line) > 60]
    # A round is one line, and a path is not broken.
    assert all(line.startswith(("round", "connected", "cutover")) or "/" in line for line in long)


def test_nobody_reads_any_more() -> None:
    stdout = os.stat(1)
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    for terminal in (False, True):
        with make_progress(stream, quiet=False, verbose=0, terminal=terminal) as progress:
            for event in events():
                progress.on_event(event)
    with pytest.raises(BrokenPipeError):
        stream.close()
    assert os.path.samestat(stdout, os.stat(1))


def test_a_stream_that_is_closed() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.close()
    with make_progress(stream, quiet=False, verbose=0) as progress:
        for event in events():
            progress.on_event(event)


def test_a_stream_that_cannot_show_a_name() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with make_progress(stream, quiet=False, verbose=0, terminal=True) as progress:
        progress.line("moving \u5357\udcff")
        progress.on_event(Finished(report=REPORT))
        progress.on_event(Failed(kind="X", message="x", fate="y", exit_code=7))
    assert b"moving ??" in raw.getvalue()


PLAY = """
import sys
from phaul.cli.render.look import Look
from phaul.cli.render.progress import make_progress
from phaul.cli.render.result import result_text
from tools.sample import REPORT, events
with make_progress(sys.stderr, quiet=False, verbose=0) as progress:
    for event in events():
        progress.on_event(event)
print(result_text(REPORT, Look.of(sys.stdout)))
"""


def test_a_real_terminal() -> None:
    environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("COLUMNS", None)
    environ.pop("NO_COLOR", None)
    child = pexpect.spawn(
        sys.executable, ["-c", PLAY], env=environ, dimensions=(40, 100), encoding="utf-8"
    )
    try:
        child.expect(pexpect.EOF, timeout=60)
    finally:
        child.close()
    text = child.before or ""
    assert child.exitstatus == 0
    assert "Ctrl-C cancels" in text
    # The live line is gone before the result stands there, and the cursor is back.
    assert text.rindex("\x1b[?25h") < text.rindex("process")
    assert "\x1b[1mdowntime\x1b[0m  284 ms = freeze" in text
