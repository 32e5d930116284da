"""A lane: two hosts of its own, in which it does one case after another.

    python3 -m tests.faults.lane       in the sandbox, as root

Reads a case a line, and answers each with a line of JSON: a `Result`.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.faults import adapter
from tests.faults.case import Case
from tests.faults.crew import Child, Zygote
from tests.faults.lanehosts import DISK, clear, lane_hosts, leftovers, remember
from tests.faults.oracle import Seen, judge
from tests.faults.plan import EVER, FaultPoint, Kind
from tests.faults.sampler import Sampler
from tests.faults.subjects import FOLDER, Sufferer, furnish, suffering
from tests.hosts.machine import Hosts

__all__ = ["Lane", "Result"]

_PHAUL_S: Final = 20.0
"""No migration takes longer, whatever happens, with the waits of `tuning`."""
_PATIENCE_S: Final = 3.0
"""So long a phaul may stand still for ever; then a person kills it."""
_SETTLE_S: Final = 15.0
_RUNS_S: Final = 0.5
_ENDS_S: Final = 6.0
_LEFT_S: Final = 20.0
"""What is left after that is left for good; a busy machine takes its time to end a process."""
_UNSETTLED: Final = 8
_PIDS_LAST: Final = 50
"""After so many cases host2 begins its PIDs anew, before they come to those of the victims."""


@dataclass
class Result:
    """What came of a case; `found` is what the oracle has to say against it."""

    case: str
    fired: bool
    found: list[str]
    seconds: float
    seen: dict[str, object] = field(default_factory=dict)
    said: dict[str, object] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)


class Lane:
    """Does cases; a host's zygote stands beside it on each host."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._zygotes = {host.name: Zygote(host) for host in hosts.both}
        self._number = 0
        there = Path(f"/proc/{hosts.destination.init}/root/proc")
        self._procs = {"host1": Path("/proc"), "host2": there}
        furnish(hosts)
        remember(hosts)

    def close(self) -> None:
        """End the zygotes."""
        for zygote in self._zygotes.values():
            zygote.close()

    def do(self, fault: FaultPoint) -> Result:
        """One case, from a clean state to a clean state."""
        begun = time.monotonic()
        self._number += 1
        if self._number % _PIDS_LAST == 0:
            words = "echo 300 >/proc/sys/kernel/ns_last_pid"
            self._hosts.destination.run(["sh", "-c", words], check=True)
        seen = Seen(may_lose=fault.way == "post-copy")
        shutil.rmtree(FOLDER, ignore_errors=True)
        with suffering(self._hosts, fault, self._number) as sufferer:
            case = Case(self._hosts, self._zygotes, fault, sufferer.order)
            if sufferer.service is not None:
                case.on_gone = sufferer.service.move
            try:
                with Sampler(sufferer.subject.pid, sufferer.address, self._procs) as sampler:
                    self._happen(case, sampler, seen)
                    self._settle(case, sampler, seen)
                    self._look(case, sampler, seen, sufferer)
            finally:
                case.close()
        result = Result(str(fault), case.fired, judge(seen), 0.0, steps=case.steps, said=case.said)
        result.seen = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in asdict(seen).items()
        }
        result.bytes = {
            f"{name}/{flow.name}": flow.passed
            for name, link in case.links.items()
            for flow in link.flows
        }
        if result.found:
            result.logs = {path.name: path.read_text()[-3000:] for path in FOLDER.glob("*.log")}
        self._clean()
        result.seconds = round(time.monotonic() - begun, 3)
        return result

    def _happen(self, case: Case, sampler: Sampler, seen: Seen) -> None:
        """The migration, the fault, and phaul's end."""
        source, harm = case.start("source"), case.harms[0]

        def over() -> bool:
            return source.status is not None

        def for_ever() -> bool:
            stopped = harm.stopped is not None and harm.stopped == source.pid
            return stopped and harm.fault.time == EVER

        if not case.until(lambda: over() or for_ever(), _PHAUL_S):
            seen.crashed.append(f"phaul had not ended after {_PHAUL_S:g} s")
            source.send(signal.SIGKILL)
            case.until(over, 2)
        elif for_ever() and not case.until(over, _PATIENCE_S):
            harm.wake()
            case.until(over, 2)
        seen.status = source.status
        seen.killed = source.killed
        if seen.status is not None and seen.status in (70, 71):
            seen.crashed.append(f"phaul crashed, status {seen.status}")
        case.harms[0].undo()
        case.go_on(0.01)
        seen.first = sampler.running(_RUNS_S)
        self._read(case, seen)

    def _settle(self, case: Case, sampler: Sampler, seen: Seen) -> None:
        """As a person would: resolve, and once more when what was in the way has gone."""
        if seen.unsure and "id" in case.said:
            in_the_way: list[Callable[[], object]] = [
                lambda: None,
                case.join,
                case.wake,
                lambda: case.go_on(2.0),
            ]
            if case.fault.kind is Kind.KILL and case.fault.seconds:
                case.go_on(case.fault.seconds)  # so long nobody comes
            for take_away in in_the_way:
                take_away()
                status = self._resolve(case, seen)
                again = seen.said.endswith("again to remove it")
                done = status is not None and status >= 0 and status != _UNSETTLED
                if done and not again and sampler.running(_RUNS_S):
                    break
        case.wake()
        if case.fault.kind is Kind.STOP and not case.fault.seconds:
            case.go_on(0.3)
        case.until(lambda: not case.agents(), _ENDS_S)

    def _resolve(self, case: Case, seen: Seen) -> int | None:
        settler = case.start("settle", id=case.said["id"])
        if not case.until(lambda: settler.status is not None, _SETTLE_S):
            seen.crashed.append(f"resolve had not ended after {_SETTLE_S:g} s")
            settler.send(signal.SIGKILL)
            case.until(lambda: settler.status is not None, 2)
        seen.settlements.append(settler.status if settler.status is not None else -1)
        seen.said = settler.log.read_text().strip()[-1500:]
        return settler.status

    def _look(self, case: Case, sampler: Sampler, seen: Seen, sufferer: Sufferer) -> None:
        """How it stands in the end."""
        seen.last = sampler.running(_RUNS_S)
        but: dict[str, set[int]] = {"host1": set(), "host2": set()}
        if sufferer.service is not None:
            but["host1"].add(sufferer.service.pid)
        for host in self._hosts.both:
            if seen.last == {host.name}:
                seen.whole = sufferer.whole(host)
                but[host.name] |= sufferer.pids
        seen.wrong = sampler.wrong()
        seen.crashed += [_said(child) for child in case.children if _crashed(child)]
        self._read(case, seen)
        if any(harm.taken for harm in case.harms):
            but["host2"].add(sufferer.subject.pid)
        self._sweep(case)
        for host in self._hosts.both:
            left = leftovers(
                host, but=but[host.name], timeout=_LEFT_S, journals=seen.last == {host.name}
            )
            seen.left += [f"{line} on {host.name}" for line in left]

    def _read(self, case: Case, seen: Seen) -> None:
        if "id" in case.said:
            seen.entry, seen.fate = adapter.standing(str(case.said["id"]))

    def _sweep(self, case: Case) -> None:
        """What an agent that was killed has left is removed by the next one, a minute later."""
        if any(child.killed and child.role == "agent" for child in case.children):
            base = self._hosts.destination.path(adapter.INCOMING)
            for path in base.iterdir() if base.exists() else ():
                os.utime(path, (0, 0))
            sweeper = self._zygotes["host2"].spawn("sweep", {"log": f"{FOLDER}/sweep.log"})
            case.children.append(sweeper)
            case.until(lambda: sweeper.status is not None, 5)

    def _clean(self) -> None:
        for host in self._hosts.both:
            clear(host)
            for name in ("migrations", "incoming"):
                shutil.rmtree(host.path(DISK / name), ignore_errors=True)


def _crashed(child: Child) -> bool:
    # One that does not answer is ended by who settles it.
    ended = child.killed or child.status == -signal.SIGKILL
    return child.status in (70, 71) or (child.status is not None and child.status < 0 and not ended)


def _said(child: Child) -> str:
    return f"the {child.role} ended with status {child.status}"


def main() -> int:
    """Do the cases that are read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends the sandbox
    with lane_hosts() as hosts:
        lane = Lane(hosts)
        try:
            print(json.dumps({"ready": os.getpid()}), flush=True)
            for line in sys.stdin:
                print(json.dumps(asdict(lane.do(FaultPoint.parse(line)))), flush=True)
        finally:
            lane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
