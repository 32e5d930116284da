"""Runs cases in lanes beside each other, each in its own sandbox, and counts what came of them."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lab.sandbox import SandboxProcess
from tests.faults.plan import FaultPoint
from tools.run_tests import prepared_sandbox

__all__ = ["Summary", "run"]

_CASE_S: Final = 150.0
"""No case takes longer; a lane that does is ended, and the case is a failure."""
_START_S: Final = 60.0


@dataclass
class Summary:
    """What a run came to."""

    results: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def fired(self) -> int:
        """The cases whose fault has happened."""
        return sum(result["fired"] for result in self.results)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Those that the oracle has something to say against."""
        return [result for result in self.results if result["found"]]

    def table(self) -> list[str]:
        """A line for each kind."""
        columns = ("cases", "there", "here", "settled", "not reached", "failed")
        counts: dict[str, Counter[str]] = {}
        for result in self.results:
            kind = str(result["case"]).split()[0]
            counter = counts.setdefault(kind, Counter())
            counter["cases"] += 1
            if result["found"]:
                counter["failed"] += 1
            elif not result["fired"]:
                counter["not reached"] += 1
            elif result["seen"]["settlements"]:
                counter["settled"] += 1
            else:
                counter["there" if result["seen"]["last"] == ["host2"] else "here"] += 1
        total: Counter[str] = Counter()
        for counter in counts.values():
            total.update(counter)
        lines = [f"{'':<12}" + "".join(f"{name:>13}" for name in columns)]
        for kind, counter in [*sorted(counts.items()), ("all", total)]:
            lines.append(f"{kind:<12}" + "".join(f"{counter[name]:>13}" for name in columns))
        return lines


class _Lane:
    """The process of a lane, and a thread that gives it cases."""

    def __init__(self, process: SandboxProcess) -> None:
        self.process = process
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line.decode())
        self.lines.put(None)

    def answer(self, limit: float) -> dict[str, Any] | None:
        """The lane's next line; None if it has ended, or is too late."""
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            return None
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer

    def do(self, case: str) -> dict[str, Any] | None:
        """Have a case done."""
        assert self.process.stdin
        try:
            self.process.stdin.write(f"{case}\n".encode())
            self.process.stdin.flush()
        except OSError:
            return None
        return self.answer(_CASE_S)


def run(
    chosen: Iterable[FaultPoint],
    wanted: int,
    lanes: int,
    on_result: Callable[[Summary, dict[str, Any]], None] = lambda _summary, _result: None,
) -> Summary:
    """Do cases until `wanted` of them have happened, or there are no more.

    Ends all that it started, whatever ends it.
    """
    summary = Summary()
    begun = time.monotonic()
    source = iter(chosen)
    lock = threading.Lock()
    sandbox = prepared_sandbox()
    processes: list[SandboxProcess] = []
    stop = threading.Event()

    def start() -> _Lane:
        process = sandbox.popen(
            ["python3", "-S", "-P", "-m", "tests.faults.lane"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with lock:
            processes.append(process)
        lane = _Lane(process)
        if lane.answer(_START_S) is None:
            raise RuntimeError("a lane did not start")
        return lane

    def work() -> None:
        lane: _Lane | None = None
        try:
            for fault in _until_enough(source, summary, wanted, lock, stop):
                lane = lane or start()
                result = lane.do(str(fault))
                with lock:
                    if result is None:
                        summary.broken.append(str(fault))
                    else:
                        summary.results.append(result)
                        on_result(summary, result)
                if result is None:
                    lane.process.end()
                    lane = None
        except BaseException as error:
            with lock:
                summary.broken.append(f"a lane broke: {error!r}")
            stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(lanes)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    finally:
        stop.set()
        for process in processes:
            with process:  # ends all that is in it
                pass
    summary.seconds = time.monotonic() - begun
    return summary


def _until_enough(
    source: Iterator[FaultPoint],
    summary: Summary,
    wanted: int,
    lock: threading.Lock,
    stop: threading.Event,
) -> Iterator[FaultPoint]:
    given = 0
    while not stop.is_set():
        with lock:
            if summary.fired >= wanted:
                return
            fault = next(source, None)
        if fault is None:
            return
        given += 1
        yield fault


def be_interruptible() -> None:
    """SIGTERM ends a run as Ctrl-C does: cleanly."""

    def end(_number: int, _frame: object) -> None:
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
