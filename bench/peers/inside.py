"""Measures where CRIU works: natively in the sandbox, or in one guest.

    python3 -m bench.peers.inside PLACE TURNS [--quick] [--demanded]     prints a line of JSON each

Both hosts are one machine, so there is one clock: the copy is restored in a PID namespace of its
own (by hand: in the same one, which is a little less work).  Contenders take turns; one round of
the smallest does not count.  Each move has a fresh victim, whose every page is checked afterwards.
"""

import argparse
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Final

import msgspec

from bench.cutover import VICTIMS, outer_pid
from bench.peers import by_hand, machine
from bench.peers.contenders import Contender, contender
from bench.peers.demands import DEMANDS, demanded
from bench.peers.link import Link
from bench.peers.results import Facts, LeftOut, Line, Sample, Taken
from bench.peers.scenarios import PLACES, Place, Scenario, scenarios, thinned
from bench.peers.share import CRIU, own_share, within
from phaul.cli.render.outcome import Moved, NotMoved
from phaul.errors import CgroupError
from phaul.report import Report
from tests.pipes import large_pipes
from tests.victims.harness import Victim, VictimError, start

BEAT_US: Final = {"native": 500, "guest": 2000}
_AT_REST_S: Final = 0.5
_PATIENCE_S: Final = 900.0
"""For anything that an emulated guest does with some GB."""
_TIMES: Final = 3.2
"""A move by hand needs its memory so often: the images of both hosts, and the process."""
_MARGIN_MB: Final = 256


class Lost(Exception):
    """A move that failed, or lost something: it has no figures."""


class Bench:
    """One place's measurements; `place` is where this runs, `folder` where the images lie.

    `close` it at the end; nothing is left behind.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self._place: Place = place
        self._folder = folder
        self._mover = machine.Group("mover")
        self._victims = machine.Group("victim")
        self._number = 0
        self.tracked = machine.tracked()
        self._options = machine.migrate_options()

    def close(self) -> None:
        """Remove what was made to measure with."""
        self._mover.remove()
        self._victims.remove()

    def takes_part(self, one: Contender) -> str | None:
        """Why a contender is left out here, None if it is not."""
        if one.tracked and not self.tracked:
            return "it differs only where dirty memory is tracked"
        lacking = one.lacks(self._options)
        return f"this phaul has no {lacking}" if lacking else None

    def run(self, wanted: tuple[Scenario, ...], turns: int) -> Iterator[Line]:
        """Measure, and yield each as it comes."""
        yield Facts(facts=machine.facts(tracks=self.tracked))
        told: set[str] = set()
        for number, scenario in enumerate(wanted):
            if machine.free_mb() < scenario.size_mb * _TIMES + _MARGIN_MB:
                yield LeftOut(what=str(scenario), why="there is not enough memory")
                continue
            taking: list[Contender] = []
            for name in scenario.contenders:
                one = contender(name)
                why = "there is no such contender" if one is None else self.takes_part(one)
                if one is not None and why is None:
                    taking.append(one)
                elif name not in told:
                    told.add(name)
                    yield LeftOut(what=name, why=why or "")
            for turn in range(0 if number == 0 else 1, turns + 1):
                # Nobody is always the first.
                for one in taking[turn % len(taking) :] + taking[: turn % len(taking)]:
                    sample = self.measure(scenario, one)
                    if turn:
                        yield Taken(scenario=scenario, turn=turn, contender=one.name, sample=sample)

    def measure(self, scenario: Scenario, one: Contender) -> Sample:
        """Move a fresh victim; a move that failed leaves nothing behind."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir(mode=0o700)
        try:
            return self._measure(scenario, one, folder)
        except (Lost, VictimError, TimeoutExpired, CgroupError) as error:
            return Sample(error=f"{type(error).__name__}: {error}"[:500])
        finally:
            self._mover.end()
            self._victims.end()
            shutil.rmtree(folder)

    def _measure(self, scenario: Scenario, one: Contender, folder: Path) -> Sample:
        file = folder / "victim.json"
        words = {
            "--size-mb": scenario.size_mb,
            "--rate": scenario.rate,
            "--heartbeat-us": BEAT_US[self._place],
            "--report": file,
        }
        if scenario.working_set:
            words["--working-set-pages"] = scenario.working_set
        argv = [str(VICTIMS / "dirtier"), *(str(w) for pair in words.items() for w in pair)]
        pid = start(argv, _PATIENCE_S)
        self._victims.put(pid)
        at_rest = -self._victims.cpu_s()
        time.sleep(_AT_REST_S)
        at_rest += self._victims.cpu_s()
        before = self._victims.cpu_s() + self._mover.cpu_s()
        begun = time.time()
        moved = self._move(scenario, one, pid, folder)
        total = time.time() - begun
        cpu = self._victims.cpu_s() + self._mover.cpu_s() - before
        where = pid if one.words is None else outer_pid(pid)
        found = Victim(where, file).check(_PATIENCE_S)
        if not found.ok:
            raise Lost(f"the victim is not whole: {found.problems}")
        gap = max(
            (each for each in found.gaps if each["at"] + each["ms"] / 1e3 > begun),
            key=lambda each: each["ms"],
            default=None,
        )
        seconds = (gap["ms"] if gap else found.max_gap_ms) / 1e3
        sample = msgspec.structs.replace(
            moved,
            gap_s=seconds,
            total_s=total,
            # Without what the victim does all the time.
            cpu_s=max(cpu - at_rest / _AT_REST_S * max(total - seconds, 0.0), 0.0),
        )
        if gap is None or one.words is None:
            return sample
        stretch = (gap["at"], gap["at"] + seconds)
        spans = [
            (str(name), float(begun), float(ended))
            for end in ("source", "agent")
            for name, begun, ended in json.loads((folder / f"{end}.json").read_text())["spans"]
        ]
        own, steps = own_share(stretch, spans), within(stretch, spans)
        if not CRIU & steps.keys():
            return sample  # it stood still for longer elsewhere: the machine is not quiet
        return msgspec.structs.replace(sample, own_s=sum(own.values()), own=own, steps=steps)

    def _move(self, scenario: Scenario, one: Contender, pid: int, folder: Path) -> Sample:
        with ExitStack() as stack:
            link = stack.enter_context(Link(scenario.link_rate)) if scenario.link_rate else None
            if one.words is None:
                sample = self._by_hand(link, pid, folder)
            else:
                sample = self._by_phaul(link, pid, folder, one.words)
            if link is not None:
                return msgspec.structs.replace(sample, bytes=sum(link.line.carried()))
            return sample

    def _by_hand(self, link: Link | None, pid: int, folder: Path) -> Sample:
        near, far = link.line.pair() if link else socket.socketpair()
        with near, far:
            fds = (near.fileno(), far.fileno())
            program = [sys.executable, "-I", "-S", by_hand.__file__, str(pid), str(folder)]
            said = self._run([*program, *map(str, fds)], folder, fds)
        return Sample(bytes=json.loads(said)["bytes"])

    def _by_phaul(
        self, link: Link | None, pid: int, folder: Path, options: tuple[str, ...]
    ) -> Sample:
        line, fds = ("-", ()) if link is None else (str(link.line.fileno()), (link.line.fileno(),))
        program = [sys.executable, "-S", "-P", "-m", "bench.peers.command", "migrate"]
        words = [*program, str(folder), line, str(pid), *options]
        said = self._run(words, folder, fds, PHAUL_STATE=str(folder / "state"))
        result = msgspec.json.decode(said, type=Moved | NotMoved)
        if isinstance(result, NotMoved):
            raise Lost(f"{result.kind}: {result.what}")
        report: Report = result.report
        follows = report.followed.sent_bytes if report.followed is not None else 0
        # What such a dump does have of the memory goes with the images, over the control channel.
        rounds = report.rounds if follows else (*report.rounds, report.final)
        control = json.loads((folder / "source.json").read_text())["control"]
        memory = sum(r.sent_bytes if r.wire_bytes is None else r.wire_bytes for r in rounds)
        return Sample(
            bytes=control + memory + follows,
            rounds=len(report.rounds),
            lazy=report.lazy,
            parts=dict(report.downtime.parts()),
        )

    def _run(
        self, argv: list[str], folder: Path, fds: tuple[int, ...], **environment: str
    ) -> bytes:
        """Run a mover to its end; what it said."""
        said = folder / "said.json"
        mover = self._mover.start(argv, said, fds, **environment)
        try:
            status = mover.wait(_PATIENCE_S)
        finally:
            if mover.poll() is None:
                mover.kill()
                mover.wait()
        if status not in (0, 1) or not said.stat().st_size:
            errors = said.with_suffix(".err").read_text(errors="replace")
            output = said.read_text(errors="replace")
            raise Lost(f"status {status}: {(errors or output)[-400:]}")
        return said.read_bytes()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="bench.peers.inside")
    parser.add_argument("place", choices=PLACES)
    parser.add_argument("turns", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--demanded", action="store_true")
    asked = parser.parse_args()
    place: Place = asked.place
    wanted = scenarios(place)
    if asked.demanded:
        wanted = demanded(DEMANDS, place)
    if asked.quick:
        wanted = thinned(wanted)
    with (
        machine.mounted() as folder,
        large_pipes(),
        closing(Bench(place, folder)) as bench,
    ):
        for line in bench.run(wanted, asked.turns):
            print(msgspec.json.encode(line).decode(), flush=True)


if __name__ == "__main__":
    main()
