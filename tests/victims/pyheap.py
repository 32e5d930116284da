#!/usr/bin/env python3
"""pyheap: a Python process with a large heap, threads and a database, that checks itself.

    pyheap.py --report PATH [--size-mb N] [--beat-ms N] [--mutate N] [--foreground] [--log PATH]

The heap is a list of items of several kinds (dictionaries, lists, strings, bytes), each of which
follows from its number and its version.  A beat gives some items a new version.  Asked, it derives
all items anew and compares, hashes the heap against the hash kept of it, and looks into the
database.  The signals and the report are those of all victims: see README.md.
"""

import argparse
import gc
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal

LISTED = 20
GAPS = 64
OUTAGE_NS = 30_000_000
ITEM_BYTES = 8192
ROWS_KEPT = 1000


def make_item(number: int, version: int) -> object:
    """Return the item of this number and version: always the same."""
    rnd = random.Random(number << 32 | version)
    match number % 4:
        case 0:
            return {f"k{i}": rnd.getrandbits(60) for i in range(ITEM_BYTES // 140)}
        case 1:
            return [rnd.random() for _ in range(ITEM_BYTES // 32)]
        case 2:
            return rnd.randbytes(ITEM_BYTES // 2).hex()
        case _:
            return rnd.randbytes(ITEM_BYTES)


def digest(item: object) -> bytes:
    """Return the hash of an item's content."""
    return hashlib.sha256(repr(item).encode()).digest()


class Worker(threading.Thread):
    """Counts, in an attribute and on its own stack, and makes garbage for the collector."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        """Take the function that notes a lasting problem."""
        super().__init__(daemon=True)
        self.count = 0
        self.complain = complain

    def run(self) -> None:
        """Count until the process ends."""
        mine = 0
        while True:
            ring: list[object] = [mine]
            ring.append(ring)  # only the collector frees this
            mine += 1
            self.count += 1
            if self.count != mine:
                self.complain(f"thread {self.name}: wanted {mine}, found {self.count}")
            time.sleep(0.003)


class Heap:
    """The items, their versions, and a hash of each."""

    def __init__(self, size_mb: int) -> None:
        """Fill the heap."""
        count = max(4, size_mb * (1 << 20) // ITEM_BYTES)
        self.versions = [0] * count
        self.items = [make_item(i, 0) for i in range(count)]
        self.digests = [digest(item) for item in self.items]
        self.cursor = 0
        self.mutated = 0

    def mutate(self, count: int) -> None:
        """Give the next `count` items a new version."""
        for _ in range(count):
            i = self.cursor
            self.versions[i] += 1
            self.items[i] = make_item(i, self.versions[i])
            self.digests[i] = digest(self.items[i])
            self.cursor = (i + 1) % len(self.items)
            self.mutated += 1

    def check(self, problem: Callable[[str], None]) -> None:
        """Derive all again and compare."""
        for i, (item, version) in enumerate(zip(self.items, self.versions, strict=True)):
            want = make_item(i, version)
            if item != want:
                problem(f"item {i}, version {version}: wanted {want!r:.40}, found {item!r:.40}")
            if digest(item) != self.digests[i]:
                problem(f"item {i}, version {version}: its hash is not the one that was kept")
        if sum(self.versions) != self.mutated:
            problem(f"versions: wanted {self.mutated} in all, found {sum(self.versions)}")


class Database:
    """A table in an SQLite database in memory: one row a beat, the last 1,000 kept."""

    def __init__(self) -> None:
        """Open it."""
        self.db = sqlite3.connect(":memory:")
        self.db.execute("create table beats (n integer primary key, word text)")
        self.rows = 0

    def insert(self) -> None:
        """Add a row, remove the one that is too old."""
        word = random.Random(self.rows).randbytes(16).hex()
        self.db.execute("insert into beats values (?, ?)", (self.rows, word))
        self.db.execute("delete from beats where n = ?", (self.rows - ROWS_KEPT,))
        self.db.commit()
        self.rows += 1

    def check(self, problem: Callable[[str], None]) -> None:
        """Compare all rows, and have SQLite check its own structures."""
        if (found := self.db.execute("pragma integrity_check").fetchone()[0]) != "ok":
            problem(f"database: {found}")
        first = max(0, self.rows - ROWS_KEPT)
        have = dict(self.db.execute("select n, word from beats"))
        for n in range(first, self.rows):
            want = random.Random(n).randbytes(16).hex()
            if (word := have.pop(n, None)) != want:
                problem(f"database: row {n}: wanted {want}, found {word}")
        for n in have:
            problem(f"database: row {n} should not be there")


class PyHeap:
    """The victim."""

    def __init__(self, report: Path, size_mb: int) -> None:
        """Fill all."""
        self.report = report
        self.heap = Heap(size_mb)
        self.database = Database()
        self.lasting: list[str] = []
        self.problems: list[str] = []
        self.workers = [Worker(self.lasting.append) for _ in range(2)]
        self.asked = self.stopping = False
        self.counter = self.reports = 0
        self.largest_ever = 0
        self.new_window()

    def new_window(self) -> None:
        """Begin to measure gaps anew: what a check took is no outage."""
        self.last = self.started = time.time_ns()
        self.largest = 0
        self.gaps: list[dict[str, float]] = []
        self.gap_count = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Take note of SIGUSR1 and SIGTERM."""
        if number == signal.SIGUSR1:
            self.asked = True
        else:
            self.stopping = True

    def beat(self) -> None:
        """Count, and note a gap."""
        now = time.time_ns()
        gap = now - self.last
        self.counter += 1
        self.largest = max(self.largest, gap)
        self.largest_ever = max(self.largest_ever, gap)
        if not 0 <= gap <= OUTAGE_NS:
            self.gap_count += 1
            self.gaps.append({"at": self.last / 1e9, "ms": gap / 1e6, "beat": self.counter})
            if len(self.gaps) > GAPS:
                self.gaps.remove(min(self.gaps, key=lambda g: g["ms"]))
        self.last = now

    def check_threads(self) -> None:
        """See that both threads go on counting."""
        before = [w.count for w in self.workers]
        until = time.time_ns() + 10_000_000_000
        while time.time_ns() < until and any(
            w.count == b for w, b in zip(self.workers, before, strict=True)
        ):
            time.sleep(0.001)
        for worker, count in zip(self.workers, before, strict=True):
            if not worker.is_alive() or worker.count == count:
                self.problems.append(f"thread {worker.name} stands still at {count}")

    def check(self) -> None:
        """Check everything, write the report."""
        self.problems = list(self.lasting)
        self.heap.check(self.problems.append)
        self.database.check(self.problems.append)
        self.check_threads()
        if not gc.isenabled():
            self.problems.append("the garbage collector is off")
        gc.collect()
        self.write_report()
        self.new_window()

    def write_report(self) -> None:
        """Replace the report as a whole."""
        self.reports += 1
        data: dict[str, Any] = {
            "victim": "pyheap",
            "pid": os.getpid(),
            "report": self.reports,
            "rt_ns": time.time_ns(),
            "ok": not self.problems,
            "problem_count": len(self.problems),
            "problems": self.problems[:LISTED],
            "counter": self.counter,
            "max_gap_ms": self.largest / 1e6,
            "max_gap_ever_ms": self.largest_ever / 1e6,
            "window_ms": (self.last - self.started) / 1e6,
            "gap_count": self.gap_count,
            "gaps": self.gaps,
            "items": len(self.heap.items),
            "mutated": self.heap.mutated,
            "rows": self.database.rows,
            "sha256": hashlib.sha256(b"".join(self.heap.digests)).hexdigest(),
            "thread_counts": [w.count for w in self.workers],
        }
        fresh = self.report.with_name(self.report.name + ".tmp")
        fresh.write_text(json.dumps(data) + "\n")
        fresh.rename(self.report)

    def run(self, beat_s: float, mutate: int, ready: Callable[[], None]) -> None:
        """Beat until SIGTERM."""
        signals = {signal.SIGUSR1, signal.SIGTERM}
        for number in signals:
            signal.signal(number, self.on_signal)
        # The threads inherit the mask: signals come to the main thread, and end its sleep.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for worker in self.workers:
            worker.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        ready()
        self.new_window()
        while not self.stopping:
            time.sleep(beat_s)
            self.beat()
            self.heap.mutate(mutate)
            self.database.insert()
            if self.asked:
                self.asked = False
                self.check()


def go_to_background() -> int:
    """Fork; in the starter wait, print the PID and exit; return the descriptor to write to."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    wait, ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready)
        if os.read(wait, 1) != b"k":
            os.write(2, b"pyheap: ended before it was ready\n")
            os._exit(1)
        os.read(wait, 1)  # its end: it has the pipe no more when it is looked at
        os.write(1, b"%d\n" % pid)
        os._exit(0)
    os.close(wait)
    os.setsid()
    os.chdir("/")
    return ready


def open_stdio(log: Path | None) -> None:
    """Leave the starter's stdio, which may lie outside of the mount namespace."""
    null = os.open("/dev/null", os.O_RDONLY)
    out = os.open(log or "/dev/null", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd, to in ((null, 0), (out, 1), (out, 2)):
        os.dup2(fd, to)
    os.close(null)
    os.close(out)


def main() -> Literal[0]:
    """Run the victim."""
    parser = argparse.ArgumentParser(description="a Python process that checks itself")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--size-mb", type=int, default=32)
    parser.add_argument("--beat-ms", type=float, default=10)
    parser.add_argument("--mutate", type=int, default=4, help="items changed a beat (default 4)")
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    log = args.log and args.log.absolute()
    report = args.report.absolute()
    channel = None if args.foreground else go_to_background()

    def ready() -> None:
        if channel is None:
            print(os.getpid(), flush=True)
            return
        open_stdio(log)
        os.write(channel, b"k")
        os.close(channel)

    PyHeap(report, args.size_mb).run(args.beat_ms / 1e3, args.mutate, ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
