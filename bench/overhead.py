"""What the library's orchestration costs, beside the same criu commands run one by one by hand.

    python -m bench.overhead            boots the lab and runs it in a guest, and in the sandbox
    python -m bench.overhead inside N   where CRIU works: N turns, as JSON

A move is two rounds of pre-copy where dirty memory is tracked, the final dump and a full restore,
on one machine, with a victim of 8 MiB whose memory costs next to nothing.  By hand means what a
person would type, started without a shell, with the same unix socket pair for the memory and the
same waiting for each page server.

It is made twice, each time with the same commands on both sides.  "First": each end first asks its
CRIU for its version, whether dirty memory is tracked, and for its own check of the kernel.
"Later": nothing is asked, as the library remembers that this very CRIU was fit on this kernel.
The four take turns; figures are medians.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import phaul
from examples.local_migration import RestoreAfterwards
from phaul.criu.engine import forget_examinations
from tests.victims.harness import Victim, start

ROUNDS = 2
PAIRS = 9
VICTIMS = Path(os.environ.get("PHAUL_VICTIMS", "build/victims"))
LOCK = ("--network-lock", "skip")


QUESTIONS = (
    ["criu", "--version"],
    ["criu", "check", "--feature", "mem_dirty_track"],
    ["criu", "check"],
)


def by_hand(pid: int, work: Path, *, tracked: bool, first: bool) -> None:
    """The commands of a migration, each awaited."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for question in QUESTIONS * 2 if first else ():
            subprocess.run(question, check=False, capture_output=True)
        rounds = ROUNDS if tracked else 0
        for number in range(rounds + 1):
            here, there = work / "here" / str(number), work / "there" / str(number)
            here.mkdir(parents=True)
            there.mkdir(parents=True)
            parent = ["--prev-images-dir", f"../{number - 1}"] if number else []
            server = subprocess.Popen(
                [
                    *("criu", "page-server", "-D", str(there), "-o", "ps.log"),
                    *("--ps-socket", str(theirs.fileno()), *parent),
                ],
                pass_fds=[theirs.fileno()],
            )
            verb = ["pre-dump"] if number < rounds else ["dump", *LOCK]
            track = ["--track-mem"] if tracked else []
            subprocess.run(
                [
                    *("criu", *verb, "-t", str(pid), "-D", str(here), "-o", "dump.log", *track),
                    *("--page-server", "--ps-socket", str(ours.fileno()), *parent),
                ],
                pass_fds=[ours.fileno()],
                check=True,
            )
            assert server.wait(60) == 0
        for image in here.glob("*.img"):
            shutil.copyfile(image, there / image.name)
        subprocess.run(
            ["criu", "restore", "-d", "-D", str(there), "-o", "restore.log", *LOCK], check=True
        )


def by_library(pid: int, work: Path, *, tracked: bool, first: bool) -> None:
    """The same by phaul; in a `first` move nothing is remembered, on either end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if first:
            forget_examinations()
        with phaul.Server(
            phaul.Config(memory_fd=theirs.fileno(), work_dir=work / "there")
        ) as server:
            rule = phaul.StopRule(min_pages=0, max_growth_pages=1 << 40, max_rounds=ROUNDS)
            config = phaul.Config(
                pid=pid, memory_fd=ours.fileno(), work_dir=work / "here", stop_rule=rule
            )
            if first:
                forget_examinations()
            report = phaul.Client(RestoreAfterwards(server), server, config).migrate()
        assert len(report.rounds) == (ROUNDS if tracked else 0)


def measure(move: Callable[..., None], *, tracked: bool, first: bool) -> float:
    """The seconds that one move of a fresh victim takes; the victim is whole afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="phaul-bench-"))
    report = folder / "report.json"
    words = [VICTIMS / "dirtier", "--size-mb", "8", "--rate", "50", "--report", report]
    pid = start([str(word) for word in words], 60)
    try:
        begun = time.monotonic()
        move(pid, folder, tracked=tracked, first=first)
        seconds = time.monotonic() - begun
        moved = Victim(pid, report)
        found = moved.check(60)
        if not found.ok:
            raise SystemExit(f"the victim is not whole: {found.problems}")
        moved.terminate(30)
    finally:
        shutil.rmtree(folder)
    return seconds


def inside(pairs: int) -> dict[str, object]:
    """Take turns, after one of each that does not count."""
    probe = ["criu", "check", "--feature", "mem_dirty_track"]
    tracked = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    found: dict[str, list[tuple[float, float]]] = {"first": [], "later": []}
    for turn in range(pairs + 1):
        for kind, taken in found.items():
            first = kind == "first"
            pair = (
                measure(by_hand, tracked=tracked, first=first),
                measure(by_library, tracked=tracked, first=first),
            )
            if turn:
                taken.append(pair)
    return {"rounds": ROUNDS if tracked else 0, **found}


def show(where: str, result: dict[str, list[tuple[float, float]]]) -> None:
    """Print one place's figures."""
    print(f"{where}: {result['rounds']} rounds, {len(result['first'])} turns")
    for kind in ("first", "later"):
        pairs = result[kind]
        hand, library = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        added = statistics.median(mine - theirs for theirs, mine in pairs)
        print(
            f"    {kind} move: by hand {hand * 1e3:.0f} ms, library {library * 1e3:.0f} ms, "
            f"ratio {ratio:.2f}, added {added * 1e3:+.0f} ms"
        )


def main() -> None:
    """Run it in both places."""
    from lab import Lab, Sandbox
    from tools.guests import ENVIRONMENT, PROJECT, install, stage

    folder = stage()
    words = ["python3", "-m", "bench.overhead", "inside", str(PAIRS)]
    sandbox = Sandbox(binds=[f"{folder}:{PROJECT}:ro"], env=ENVIRONMENT, cwd=PROJECT)
    show("native", json.loads(sandbox.run(words, timeout=300, check=True).stdout))
    with Lab(memory_mib=1024, thp="never") as lab:
        install(lab.src, folder)
        result = lab.src.run(words, env=ENVIRONMENT, cwd=PROJECT, timeout=900, check=True)
        show("guest", json.loads(result.stdout))


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        print(json.dumps(inside(int(sys.argv[2]))))
    else:
        main()
