"""CRIU's log: the one line of it that decided, and what to do about it.

Used after a failed request, on both hosts.  CRIU reports its *first* error line by RPC, which can
be a harmless one that every success has too; and its last ones only say that it failed.
"""

import re
from pathlib import Path
from typing import Final

__all__ = ["decisive_line", "read_tail", "remedy_for"]

# What is read of a log at most; at the log level that phaul asks for they have a few lines.
_LIMIT: Final = 64 << 20

_TAIL: Final = 32_768

# The time stamp is only there from log level 4 on; the PID where a restored task speaks.
_ERROR = re.compile(r"^(?:\([\d.]+\))?\s*(?:pie: )?(?:\s*\d+: )?Error +(.*)$")

# Errors that CRIU logs and then goes on from.
_HARMLESS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"rlimit: Can't setup RLIMIT_NOFILE",  # without CAP_SYS_RESOURCE, on every success
        r"Unable to set TCP_(CORK|NODELAY)",  # the memory channel is a unix socket
        r"Can't open /proc/sys/fs/pipe-max-size",
        r"Unable to get list of plugins|Unable to open .*plugins",
    )
)

# Errors that only say that an earlier one was fatal.
_CONSEQUENCE: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(Dumping|Pre-dumping|Restoring) FAILED",
        r"Dump .*\(pid: \d+\) failed with -?\d+",
        r"(Pre-)?[Dd]umping \(pid: \d+\) failed",
        r"Unable to (dump|restore) the ",
        r"RPC client reported script error|action scripts failed|due to .* script ret code",
        r"Page transfer failed|Can't (dump|send) (unfreezable|memory)",
        r"exited, status=|killed by signal|Child .*exited|Child process .*",
        r"Can't (seize|dump|restore) (task|process)",
    )
)

_REMEDIES: Final = (
    (
        r"Can't lookup mount=",
        "a file of the process lies outside its mount namespace (often the standard streams, "
        "inherited from whoever started it): start it with its streams on /dev/null or a log file",
    ),
    (
        r"Can't fork for \d+: File exists|Unable to create a thread .*File exists|Pid \d+ (is|do)",
        "a process there has the same PID: end it, or restore into another PID namespace",
    ),
    (
        r"[Cc]onnected TCP socket|tcp-established",
        "the process has TCP connections: use the option tcp_established",
    ),
    (r"has bad size|File .* has bad", "a file differs from the one that was open on the source"),
    (
        r"Found dangling tty|terminal|--shell-job",
        "the process has a terminal: use the option shell_job",
    ),
    (
        r"External socket is used|ext-unix-sk",
        "the process has a unix socket to outside the tree: use the option ext_unix_sk",
    ),
    (r"file locks|--file-locks", "the process holds file locks: use the option file_locks"),
    (
        r"ghost|link-remap",
        "the process has an unlinked file open: use the option link_remap, or raise ghost_limit",
    ),
    (
        r"No space left on device",
        "the file system of the images is full: make room, or choose another work directory",
    ),
    (
        r"page server doesn't answer|page-server|Can't send PSI|write pages to socket"
        r"|[Ss]ocket was closed|read pagemap from socket|not flushed",
        "the memory channel broke: see whether the other side still runs, and try again",
    ),
)


def decisive_line(path: Path | None) -> str:
    """The error line of the log `path` that tells the cause, without its time stamp.

    That is the first error that is neither harmless nor the consequence of another; if there is
    none, the last consequence; if there is no error at all, or no log, "".
    """
    if path is None:
        return ""
    consequence = ""
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT).decode(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        match = _ERROR.match(line)
        if not match or any(p.search(line) for p in _HARMLESS):
            continue
        said = f"Error {match[1]}"
        if not any(p.search(said) for p in _CONSEQUENCE):
            return said
        consequence = said
    return consequence


def read_tail(path: str | Path, most: int = _TAIL) -> str:
    """The last `most` characters of a log, "" if there is none; in whole lines."""
    if not path:
        return ""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - most, 0))
            text = file.read(most).decode(errors="replace")
    except OSError:
        return ""
    return text if size <= most else text.partition("\n")[2]


def remedy_for(line: str) -> str:
    """What to do about a decisive line, or "" where nothing certain can be said."""
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, line)), "")
