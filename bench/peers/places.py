"""Runs the program inside: natively in the sandbox, or in a guest of the lab.  Runs on the host."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from bench.peers.demands import DEMANDS, demanded
from bench.peers.results import LeftOut, Line, PlaceResults, Taken, gathered
from bench.peers.scenarios import Place, scenarios, thinned
from lab.errors import CommandError, LabError

__all__ = ["measure"]

_NATIVE_S: Final = 4 * 3600.0
_LINE_S: Final = 3600.0
"""Between two samples of a guest, with what starts and checks its victim."""
_TIMES: Final = 3.5
_GUEST_MB: Final = 1024

_decoder: Final = msgspec.json.Decoder(Line)


def measure(place: Place, turns: int, *, quick: bool, only_demanded: bool) -> PlaceResults:
    """Measure all of a place, and tell each sample as it comes.

    When the program inside fails, or is interrupted, what was measured so far is kept.
    """
    options = [*(["--quick"] if quick else []), *(["--demanded"] if only_demanded else [])]
    argv = ["python3", "-m", "bench.peers.inside", place, str(turns), *options]
    if place == "native":
        return gathered(place, _told(_native(argv)))
    wanted = demanded(DEMANDS, place) if only_demanded else scenarios(place)
    wanted = thinned(wanted) if quick else wanted
    largest = max(scenario.size_mb for scenario in wanted)
    return gathered(place, _told(_guest(argv, int(largest * _TIMES) + _GUEST_MB)))


def _told(lines: Iterator[str]) -> Iterable[Line]:
    try:
        for text in lines:
            line: Line = _decoder.decode(text)
            if isinstance(line, Taken):
                sample = line.sample
                figures = f"{sample.gap_s * 1e3:.0f} ms of {sample.total_s:.2f} s"
                print(
                    f"{line.scenario}, turn {line.turn}: {line.contender}: "
                    f"{sample.error or figures}",
                    file=sys.stderr,
                    flush=True,
                )
            yield line
    except (LabError, KeyboardInterrupt) as error:
        why = str(error) or "it was interrupted"
        print(f"what was measured so far is kept: {why}", file=sys.stderr)
        yield LeftOut(what="the rest", why=why.splitlines()[0][:200])


def _native(argv: list[str]) -> Iterator[str]:
    from tools.run_tests import prepared_sandbox

    with prepared_sandbox().popen(argv, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(_NATIVE_S, process.end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.decode()
        finally:
            timer.cancel()
        if process.wait():
            raise CommandError("sandbox", argv, process.returncode, b"", b"")


def _guest(argv: list[str], memory_mib: int) -> Iterator[str]:
    from lab import Lab
    from tools.guests import ENVIRONMENT, PROJECT, install, stage

    folder = stage()
    # Two processors, as both hosts are this one machine; it limits nobody's CPU time (lab/README).
    with Lab(memory_mib=memory_mib, thp="never", cpus=2) as lab:
        lab.dst.power_cut()  # both hosts are one machine here; the other would only take time
        install(lab.src, folder)
        with lab.src.spawn(argv, cwd=PROJECT, env=ENVIRONMENT) as command:
            yield from command.stdout.lines(_LINE_S)
            if status := command.wait():
                raise CommandError("guest", argv, status, b"", command.stderr.read())
