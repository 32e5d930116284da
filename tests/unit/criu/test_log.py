import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.criu.log import decisive_line, remedy_for

HARMLESS = "(00.000051) Error (criu/rlimit.c:18): rlimit: Can't setup RLIMIT_NOFILE for self\n"
CAUSE = "(00.012345) Error (criu/page-xfer.c:202): page-xfer: Can't write pages to socket: Broken\n"
CONSEQUENCES = (
    "(00.012400) Error (criu/cr-dump.c:1769): Dump mappings (pid: 77) failed with -1\n"
    "(00.012500) Error (criu/cr-dump.c:2129): Dumping FAILED.\n"
)
NOISE = "(00.000100) Warn  (criu/kerndat.c:1): Error is only a word here\n(00.2) Dumping...\n"
SAID = "Error (criu/page-xfer.c:202): page-xfer: Can't write pages to socket: Broken"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HARMLESS + NOISE + CAUSE + CONSEQUENCES, SAID),
        (HARMLESS + CONSEQUENCES, "Error (criu/cr-dump.c:2129): Dumping FAILED."),
        (HARMLESS, ""),
        (NOISE, ""),
        ("", ""),
        ("(00.1) pie: 7: Error (criu/pie/restorer.c:1): it broke\n", None),
        ("(00.018652)   7: Error (criu/files.c:3): it broke\n", None),
        ("(00.1) Error (a.c:1): it broke\n(00.2) Error (b.c:2): later\n", None),
        (CAUSE.rstrip("\n"), SAID),
        (CAUSE.replace("\n", "\r\n"), SAID),
    ],
)
def test_the_line_that_decided(tmp_path: Path, text: str, line: str | None) -> None:
    log = tmp_path / "log"
    log.write_bytes(text.encode())
    if line is None:
        assert decisive_line(log).endswith("it broke")
    else:
        assert decisive_line(log) == line


def test_no_log(tmp_path: Path) -> None:
    assert decisive_line(tmp_path / "none") == ""
    assert decisive_line(tmp_path) == ""


def test_a_huge_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        for _ in range(50):
            file.write(NOISE * 1000)
        file.write(CAUSE)
    assert decisive_line(log) == SAID


@given(st.binary(max_size=500))
def test_garbage(data: bytes) -> None:
    descriptor = os.memfd_create("log")
    try:
        os.write(descriptor, b"(00.1) " + data + b"\n" + CAUSE.encode())
        assert decisive_line(Path(f"/proc/self/fd/{descriptor}")).startswith("Error ")
    finally:
        os.close(descriptor)


def test_a_cause_that_is_no_utf8(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"(00.1) Error (criu/files.c:3): Can't open caf\xe9\n")
    assert decisive_line(log).startswith("Error (criu/files.c:3): Can't open caf")


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (SAID, "memory channel broke"),
        ("Error (criu/files.c:3): Can't lookup mount=30 for fd=0 path=/x", "outside its mount"),
        ("Error (criu/cr-restore.c:9): Can't fork for 77: File exists", "same PID"),
        ("Error (criu/sk-inet.c:1): inet: Connected TCP socket, consider", "tcp_established"),
        ("Error (criu/tty.c:1): tty: Found dangling tty with sid 5", "shell_job"),
        ("Error (criu/files-reg.c:1): File x has bad size 5 (expect 4)", "differs"),
        ("Error (criu/image.c:1): Unable to write: No space left on device", "make room"),
        ("Error (criu/what.c:1): never seen before", ""),
        ("", ""),
    ],
)
def test_remedies(line: str, remedy: str) -> None:
    found = remedy_for(line)
    assert remedy in found
    assert bool(found) == bool(remedy)
