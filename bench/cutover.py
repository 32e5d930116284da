"""What the two phases of the commit cost, beside returning from `post-dump` as in 2017.

    python -m bench.cutover [N]         runs it in the sandbox, N pairs of each kind
    python -m bench.cutover trace       there: the steps of one move of each kind, with their times

A process is moved from one PID namespace to another, over links of several delays, in turns:

*two phases*  the code as it is: the tree is held in `post-dump` and by frozen cgroups, the copy in
    `post-restore`; Ready, the journals, the kill, Commit, the release.
*the original*  the same channels, images and CRIUs.  The copy runs as soon as CRIU has restored it;
    when that is heard, the source returns from `post-dump` and CRIU kills the tree.  No journal, no
    second lock, no cage, and for the time of a kill and half a round trip there are two of it.

The downtime is the victim's own: the largest gap of its heartbeat.  Both hosts' directories are on
a disk, and the victim is in a cgroup of its own.  Figures are medians of the pairs' differences.

On a busy machine the dump and the restore, which are the same, differ more from turn to turn than
the commits do.  So the difference is shown a second time without them: from the copy's restore to
its first beat, and the waiting for the second lock and for the cage before it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any, Final

import anyio

from bench import delay as delays
from bench.original import AsTheOriginal, OriginalSession
from bench.stopwatch import Span, Stopwatch, agent_steps, source_steps
from phaul.cgroups import Cgroups
from phaul.config import Config
from phaul.criu.engine import Engine
from phaul.destination.agent import run_agent
from phaul.destination.namespace import run_as_init
from phaul.protocol import messages as m
from phaul.protocol.handshake import OURS
from phaul.report import Report
from phaul.source.counterpart import Counterpart
from phaul.source.ownership import Ledger
from phaul.source.session import SourceSession
from phaul.storage.journal import Journal, SourceRecord
from phaul.subjects.proc import Proc
from phaul.subjects.tree import tree_pids
from phaul.transport.beside import beside
from phaul.transport.caller import Caller
from phaul.transport.namespace import NamespaceSource
from phaul.transport.stdio import StdioAgent
from tests.victims.harness import Victim, start

PAIRS: Final = 9
LEAST: Final = 3
BUDGET_S: Final = 75.0
ROUND_TRIPS_MS: Final = (0, 5, 20)
TASKS: Final = (1, 200)
KINDS: Final = ("original", "two-phase")
GROUP: Final = "/bench-victim"
VICTIMS: Final = Path(os.environ.get("PHAUL_VICTIMS", "build/victims"))
DISK: Final = Path("/disk")
_ASKED: Final = 7
_S: Final = 30.0

Sample = dict[str, float]


class Link(NamespaceSource):
    """An agent of the bench in a PID namespace of its own, behind a link of `delay_ms` each way."""

    def __init__(self, agent: tuple[str, ...], delay_ms: float) -> None:
        self._slow = (
            (sys.executable, "-I", "-S", delays.__file__, str(delay_ms)) if delay_ms else ()
        )
        self._memory: subprocess.Popen[bytes] | None = None
        super().__init__((*self._slow, *agent))

    async def open_memory(self, token: str) -> socket:
        """The memory channel, behind the same link."""
        import socket as sockets

        memory = await super().open_memory(token)
        if not self._slow:
            return memory
        near, far = sockets.socketpair()
        with memory, far:
            self._memory = subprocess.Popen(self._slow, stdin=far.fileno(), stdout=memory.fileno())
        return near

    async def aclose(self) -> None:
        """Close it, and end the link."""
        await super().aclose()
        if self._memory is not None:
            self._memory.wait(_S)


async def move(kind: str, pid: int, folder: Path, delay_ms: float) -> tuple[Report, float]:
    """Move a process; the report, and a round trip of the control channel in seconds."""
    agent = (sys.executable, "-S", "-P", "-m", "bench.cutover", "agent", kind, str(folder))
    async with Engine().worker() as worker:
        criu = await Engine().examine(worker)
    key = os.urandom(16).hex()
    async with beside() as tasks, Link(agent, delay_ms) as end:
        caller = Caller(end.control)
        version = m.CriuVersion(
            major=criu.version.major, minor=criu.version.minor, sublevel=criu.version.sublevel
        )
        hello = m.Hello(versions=OURS, phaul="0", host="here", criu=version, migration="bench")
        welcome = await caller.hello(hello, _S)
        tasks.start_soon(end.control.stay_alive)
        trips = []
        for _ in range(_ASKED):
            begun = time.monotonic()
            await caller.call(m.Clock(), _S)
            trips.append(time.monotonic() - begun)
        memory = await end.open_memory(welcome.token)
        pids = tree_pids(pid, Proc())
        await caller.call(m.Prepare(key=key, pids=tuple(pids), memory_bytes=1 << 20), _S)
        work = folder / "source"
        work.mkdir()
        config = Config(
            pid=pid,
            memory_fd=memory.fileno(),
            work_dir=work / "images",
            second_lock=kind != "original",
        )
        there = Counterpart(caller, config.timeouts)
        if kind == "original":
            session: SourceSession = OriginalSession(config, there, there, facts=criu)
        else:
            ledger = Ledger(Journal(work, SourceRecord), "bench", key)
            session = SourceSession(config, there, there, facts=criu, ledger=ledger)
        try:
            report = await session.migrate()
            await there.take_leave(_S)
        finally:
            memory.close()
    return report, statistics.median(trips)


def be_agent(kind: str, folder: Path) -> int:
    """The agent of one move, which writes down how long its steps took."""
    watch = Stopwatch()
    agent_steps(watch)

    async def run() -> int:
        if kind == "original":
            return await AsTheOriginal.run(StdioAgent(), folder / "agent")
        return await run_agent(StdioAgent(), folder / "agent")

    def serve() -> int:
        status = anyio.run(run)
        (folder / "agent.json").write_text(json.dumps(watch.spans))
        return status

    return run_as_init(serve)


def outer_pid(pid: int) -> int:
    """The PID here of the process that has that PID one PID namespace below."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in status.read_text().splitlines():
                if line.startswith("NSpid:") and line.split()[2:] == [str(pid)]:
                    return int(line.split()[1])
    raise SystemExit(f"process {pid} did not arrive")


def measure(
    kind: str, tasks: int, delay_ms: float, number: int, watch: Stopwatch
) -> tuple[Sample, list[Span]]:
    """Move a fresh victim, and take its figures, in seconds; it is whole afterwards."""
    folder = DISK / f"{number}"
    folder.mkdir(mode=0o700)
    file = folder / "report.json"
    words = [VICTIMS / "crowd", "--tasks", tasks, "--report", file]
    pid = start([str(word) for word in words])
    cgroups = Cgroups.find()
    assert cgroups is not None
    for each in tree_pids(pid, Proc()):
        cgroups.move(each, GROUP)
    Victim(pid, file).check(_S)
    # Else the syncs of one kind would bring to the disk what the other kind has left before it.
    os.sync()
    watch.spans.clear()
    report, trip = anyio.run(partial(move, kind, pid, folder, delay_ms))
    moved = Victim(outer_pid(pid), file)
    found = moved.check(_S)
    if not found.ok:
        raise SystemExit(f"the victim is not whole: {found.problems}")
    gap = found.max_gap_ms / 1e3
    spans = sorted(
        [*watch.spans, *json.loads((folder / "agent.json").read_text())], key=lambda each: each[1]
    )
    beat = found.data["max_gap_at"] + gap
    frozen = next(begun for name, begun, _ in spans if name == "freeze")
    parts: Sample = {}
    for name, begun, ended in spans:
        parts[name] = parts.get(name, 0.0) + ended - begun
    sample = {
        "gap": gap,
        "beat": beat - frozen,
        "trip": trip,
        # What comes after the restore, and what waits before it: all that the two kinds differ in.
        "own": beat
        - next(ended for name, _, ended in spans if name.startswith("there: CRIU's restore"))
        + parts.get("second lock, waited for", 0.0)
        + parts.get("there: cage, hold", 0.0),
        **{f"part {name}": seconds for name, seconds in report.downtime.parts()},
        **{f"step {name}": seconds for name, seconds in parts.items()},
    }
    moved.terminate(_S)
    subprocess.run(["rm", "-rf", folder], check=True)
    return sample, [*spans, ("the copy's first beat", beat, beat)]


def inside(pairs: int) -> list[dict[str, Any]]:
    """Take turns, after one of each that does not count."""
    watch, number, found = Stopwatch(), 0, []
    source_steps(watch)
    for tasks in TASKS:
        taken: dict[int, list[dict[str, Sample]]] = {delay: [] for delay in ROUND_TRIPS_MS}
        until = time.monotonic() + BUDGET_S
        for turn in range(pairs + 1):
            if turn > LEAST and time.monotonic() > until:
                break  # on a busy machine: the table says how many there were
            for delay, samples in taken.items():
                pair = {}
                for kind in KINDS if turn % 2 else reversed(KINDS):
                    number += 1
                    pair[kind], _ = measure(kind, tasks, delay / 2, number, watch)
                if turn:
                    samples.append(pair)
        found += [{"tasks": tasks, "delay": delay, "pairs": p} for delay, p in taken.items()]
    return found


def trace() -> None:
    """Print the steps of moves, since the freeze."""
    watch = Stopwatch()
    source_steps(watch)
    for number, tasks in enumerate((1, *TASKS)):
        for kind in KINDS:
            sample, spans = measure(kind, tasks, 0, number * 2 + KINDS.index(kind), watch)
            if not number:
                continue
            print(f"\n{kind}, {tasks} tasks: a gap of {sample['gap'] * 1e3:.1f} ms")
            zero = next(begun for name, begun, _ in spans if name == "freeze")
            for name, begun, ended in spans:
                if begun >= zero:
                    print(
                        f"{(begun - zero) * 1e3:9.2f} {(ended - zero) * 1e3:9.2f} "
                        f"{(ended - begun) * 1e3:8.2f}  {name}"
                    )


def middle(values: Iterable[float]) -> float:
    """The median, in milliseconds."""
    return statistics.median(values) * 1e3


def judge(pairs: list[dict[str, Sample]]) -> tuple[list[float], list[float], list[float]]:
    """The differences of the gaps, of the commits alone, and what is allowed, of each pair."""
    gaps, own = (
        [pair["two-phase"][name] - pair["original"][name] for pair in pairs]
        for name in ("gap", "own")
    )
    # One round trip and the kill, as it is left to CRIU, in that very turn.
    allowed = [pair["two-phase"]["trip"] + pair["original"]["part kill"] for pair in pairs]
    return gaps, own, allowed


def show(found: list[dict[str, Any]]) -> None:
    """Print the figures, and whether the two phases cost no more than they may."""
    print("medians (quartiles) of their differences, in ms\n")
    print(
        "pairs  tasks  link   original  two phases   more, the gap     more, the commit   may be"
        "  judged"
    )
    missed, worst = 0, -1e9
    for row in found:
        gaps, own, allowed = judge(row["pairs"])
        over = middle(cost - limit for cost, limit in zip(own, allowed, strict=True))
        seen = middle(cost - limit for cost, limit in zip(gaps, allowed, strict=True))
        missed, worst = missed + (seen > 0), max(worst, seen)
        whole = [middle(pair[kind]["gap"] for pair in row["pairs"]) for kind in KINDS]
        print(
            f"{len(row['pairs']):>5}{row['tasks']:>7}{row['delay']:>6}"
            f"{whole[0]:>11.1f}{whole[1]:>12.1f}  "
            f"{spread(gaps)}  {spread(own)} {middle(allowed):>7.1f}  "
            f"{'met' if seen <= 0 else 'missed'} by {abs(seen):.1f}; the commit alone "
            f"{'met' if over <= 0 else 'missed'} by {abs(over):.1f}"
        )
    for kind in KINDS:
        print(f"\n{kind}: the parts of the report and the steps, medians in ms")
        columns = [row["pairs"] for row in found]
        names = list(dict.fromkeys(n for pairs in columns for pair in pairs for n in pair[kind]))
        print(f"{'tasks/link':<42}" + "".join(f"{r['tasks']:>6}/{r['delay']:<3}" for r in found))
        for name in names:
            cells = [middle(pair[kind].get(name, 0.0) for pair in pairs) for pairs in columns]
            print(f"{name:<42}" + "".join(f"{cell:>9.2f} " for cell in cells))
    print(
        f"\nat most one round trip and the kill more than the original: met in "
        f"{len(found) - missed} of {len(found)}; {'at worst missed' if missed else 'met'} "
        f"by {abs(worst):.1f} ms"
    )


def spread(values: list[float]) -> str:
    """The median and the quartiles, in milliseconds."""
    low, _, high = (value * 1e3 for value in statistics.quantiles(values, n=4))
    return f"{middle(values):>6.1f} ({low:>5.1f}..{high:>5.1f})"


def main() -> None:
    """Run it in the sandbox."""
    from tempfile import TemporaryDirectory

    from tools.run_tests import prepared_sandbox
    from tools.stage import ROOT

    given = sys.argv[1:] or [str(PAIRS)]
    words = ["tracing"] if given == ["trace"] else ["inside", given[0]]
    (ROOT / "build").mkdir(exist_ok=True)
    # Not in /tmp, which may be memory: there nothing has to wait for a disk.
    with TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as disk:
        sandbox = prepared_sandbox(f"{disk}:/disk")
        done = sandbox.run(["python3", "-m", "bench.cutover", *words], timeout=600, check=True)
    if words == ["tracing"]:
        print(done.stdout.decode())
    else:
        show(json.loads(done.stdout))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["agent", kind, folder, "--init"]:
            sys.exit(be_agent(kind, Path(folder)))
        case ["inside", pairs]:
            cgroups = Cgroups.find()
            assert cgroups is not None
            cgroups.make(GROUP)
            print(json.dumps(inside(int(pairs))))
        case ["tracing"]:
            cgroups = Cgroups.find()
            assert cgroups is not None
            cgroups.make(GROUP)
            trace()
        case _:
            main()
