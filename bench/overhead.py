"""What the library's orchestration costs, beside the same criu commands run one by one by hand.

    python -m bench.overhead            boots the lab and runs it in a guest, and in the sandbox
    python -m bench.overhead inside N   where CRIU works: N pairs of moves, as JSON

A move is the checks of both ends, two rounds of pre-copy where dirty memory is tracked, the final
dump and a full restore, on one machine, with a victim of 8 MiB whose memory costs next to nothing.
By hand means what a person would type, started without a shell, with the same unix socket pair for
the memory and the same waiting for each page server.  The library is measured twice: as a process
that has moved something before does it, which remembers that CRIU is fit, and with both ends
examining CRIU anew, as by hand.  The three take turns; figures are medians.
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
from functools import partial
from pathlib import Path

import phaul
from examples.local_migration import RestoreAfterwards
from phaul.criu.engine import forget_examinations
from tests.victims.harness import Victim, start

ROUNDS = 2
PAIRS = 7
VICTIMS = Path(os.environ.get("PHAUL_VICTIMS", "build/victims"))
LOCK = ("--network-lock", "nftables")


def by_hand(pid: int, work: Path, *, tracked: bool) -> None:
    """The commands of a migration, each awaited."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(["criu", "check"], check=True, capture_output=True)
        subprocess.run(["criu", "check"], check=True, capture_output=True)
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


def by_library(pid: int, work: Path, *, tracked: bool, anew: bool = False) -> None:
    """The same by phaul; with `anew` nothing is known from an earlier move, on either end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if anew:
            forget_examinations()
        with phaul.Server(
            phaul.Config(memory_fd=theirs.fileno(), work_dir=work / "there")
        ) as server:
            rule = phaul.StopRule(min_pages=0, max_growth_pages=1 << 40, max_rounds=ROUNDS)
            config = phaul.Config(
                pid=pid, memory_fd=ours.fileno(), work_dir=work / "here", stop_rule=rule
            )
            if anew:
                forget_examinations()
            report = phaul.Client(RestoreAfterwards(server), server, config).migrate()
        assert len(report.rounds) == (ROUNDS if tracked else 0)


def measure(move: Callable[..., None], *, tracked: bool) -> float:
    """The seconds that one move of a fresh victim takes; the victim is whole afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="phaul-bench-"))
    report = folder / "report.json"
    words = [VICTIMS / "dirtier", "--size-mb", "8", "--rate", "50", "--report", report]
    pid = start([str(word) for word in words], 60)
    try:
        begun = time.monotonic()
        move(pid, folder, tracked=tracked)
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
    hand, library, first = [], [], []
    for turn in range(pairs + 1):
        taken = (
            measure(by_hand, tracked=tracked),
            measure(by_library, tracked=tracked),
            measure(partial(by_library, anew=True), tracked=tracked),
        )
        if turn:
            hand.append(taken[0])
            library.append(taken[1])
            first.append(taken[2])
    rounds = ROUNDS if tracked else 0
    return {"rounds": rounds, "hand_s": hand, "library_s": library, "first_s": first}


def show(where: str, result: dict[str, list[float]]) -> None:
    """Print one place's figures."""
    hand = statistics.median(result["hand_s"])
    print(
        f"{where}: {result['rounds']} rounds, {len(result['hand_s'])} turns, "
        f"by hand {hand * 1e3:.0f} ms"
    )
    for name, what in (("library_s", "the library"), ("first_s", "its first move")):
        pairs = list(zip(result[name], result["hand_s"], strict=True))
        median = statistics.median(result[name])
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        added = statistics.median(mine - theirs for mine, theirs in pairs)
        print(
            f"    {what:<15} {median * 1e3:.0f} ms, ratio {ratio:.2f}, added {added * 1e3:+.0f} ms"
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
