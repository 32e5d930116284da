"""Migrations, each held at a moment of its own; then one fault for all, and what came of each.

Runs on the host.  One fault for several: to boot a guest, or to wait until a connection is lost,
takes an emulated machine longer than a migration.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from lab import Guest, Lab, LabError
from tests.vm.conftest import run_phaul
from tests.vm.faults.cases import Fault, Moment, Place, places
from tests.vm.faults.scene import TARGET, Scene
from tests.vm.faults.watch import Watch

__all__ = ["Batch", "Judged"]

SHORT_S: Final = 5.0
NOTICED_S: Final = 66.0
"""60 s without a sign of life are a lost connection; for 20 s more it tries to make another."""
END_S: Final = 240.0
GOES_S: Final = 90.0
"""An agent whose source is gone without a word notices it after 60 s."""
NEXT_PID = 20_000
STEP = 20
"""Victims' PIDs: each is free on the other guest, and is no other case's."""

_LEFT = """
ps -eo pid=,args= | grep -v victims/ |
  grep -E '[c]riu|[p]haul (agent|migrate)|[s]sh .*phaul|[s]shd-(session|auth)'
find /var/lib/phaul/incoming -mindepth 1 -maxdepth 1 2>/dev/null | while read d; do
  ls -A "$d" | grep -qv journal.json || grep -qs '"state":"running"' "$d"/{,.note-}journal.json ||
    echo "$d"
done
find /var/lib/phaul -name '*.img' 2>/dev/null
ls -d /run/phaul-ssh-* /tmp/phaul-* 2>/dev/null
nft list tables
find /sys/fs/cgroup -name '*phaul-*'
grep phaul /proc/mounts
true
"""
_STALE = "find /var/lib/phaul/incoming -mindepth 1 -maxdepth 1 -exec touch -d '-2 minutes' {} +"
_SSH_LEFT = """
for d in /tmp/phaul-ssh-*; do pgrep -f "ControlPath=$d" >/dev/null || rm -rf "$d"; done
"""
"""What a phaul that is killed cannot remove, and nobody else knows of: a directory of its ssh's."""

_logger = logging.getLogger("faults")


@dataclass(frozen=True)
class Judged:
    """What came of a case; `wrong` is "" if it is well."""

    wrong: str
    place: str = ""
    story: str = ""


class Batch:
    """Cases of one fault, at several moments."""

    def __init__(self, lab: Lab, fault: Fault, moments: Sequence[Moment]) -> None:
        global NEXT_PID
        self.lab = lab
        self.fault = fault
        self.scenes: list[Scene] = []
        for moment in moments:
            self.scenes.append(Scene(lab, moment, NEXT_PID))
            NEXT_PID += STEP
        self._wrong: dict[Scene, list[str]] = {scene: [] for scene in self.scenes}
        self._story: dict[Scene, list[str]] = {scene: [] for scene in self.scenes}
        self._place: dict[Scene, str] = {}

    def run(self) -> dict[Moment, Judged]:
        """Do it; what came of each.  Nothing is left running."""
        begun = time.monotonic()
        try:
            self._run()
        finally:
            for scene in self.scenes:
                scene.stop()
        for scene in self.scenes:
            self._story[scene].append(
                f"batch of {len(self.scenes)}: {time.monotonic() - begun:.0f} s"
            )
        return {
            scene.moment: Judged(
                "; ".join(self._wrong[scene]),
                self._place.get(scene, ""),
                ", ".join(self._story[scene]),
            )
            for scene in self.scenes
        }

    def _run(self) -> None:
        # What an earlier batch has left is told of that one.
        self._before = {guest.name: set(self._found(guest)) for guest in self.lab.guests}
        for scene in self.scenes:
            self._try(scene, scene.start)
        self._watch = Watch([(s.pid, s.counter_at) for s in self._well()])
        for guest in self.lab.guests:
            self._watch.begin(guest)
        try:
            self._at_once(lambda scene: scene.bring())
            for scene in self._well():
                self._story[scene].append(scene.noted)
            self._break()
            for scene in self._well():
                self._try(scene, partial(scene.wait, END_S))
            if self.fault is Fault.LINK_LONG:
                self._look("with the link cut")
                self.lab.link.join()
            self._look("by itself")
            self._at_once(self._resolve)
            found = self._watch.runs()
        finally:
            self._watch.end()
        for scene in self._well():
            self._try(scene, partial(self._judge, scene, found.get(scene.pid, [])))
        self._listed()
        self._nothing_left()

    def _well(self) -> list[Scene]:
        return [scene for scene in self.scenes if not self._wrong[scene]]

    def _try(self, scene: Scene, do: Callable[[], object]) -> None:
        try:
            do()
        except (AssertionError, LabError, OSError, ValueError, KeyError, StopIteration) as error:
            self._wrong[scene].append(f"{type(error).__name__}: {error}")

    def _at_once(self, do: Callable[[Scene], None]) -> None:
        threads = [
            threading.Thread(target=self._try, args=(scene, partial(do, scene)))
            for scene in self._well()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # -- the fault

    def _break(self) -> None:
        src, dst = self.lab.guests
        match self.fault:
            case Fault.POWER_SRC:
                self._cut_power(src)
            case Fault.POWER_DST:
                self._cut_power(dst)
            case Fault.LINK_SHORT | Fault.LINK_PATIENCE | Fault.LINK_LONG:
                self.lab.link.cut()
                self._thaw()
                if self.fault is not Fault.LINK_LONG:
                    time.sleep(SHORT_S if self.fault is Fault.LINK_SHORT else NOTICED_S)
                    self.lab.link.join()
            case Fault.PHAUL:
                self._kill(src)
            case Fault.AGENT:
                self._kill(dst)
            case Fault.CRIU_SRC:
                self._kill(src, "criu")
            case Fault.CRIU_DST:
                self._kill(dst, "criu")

    def _cut_power(self, guest: Guest) -> None:
        guest.power_cut()
        self._thaw()
        guest.boot()
        if guest is self.lab.dst:
            guest.start_sshd()
        self._watch.begin(guest)

    def _kill(self, guest: Guest, comm: str = "") -> None:
        for scene in self._well():
            self._try(scene, partial(scene.kill, guest, comm))
        self._thaw()

    def _thaw(self) -> None:
        self._at_once(lambda scene: scene.thaw())

    # -- the judging

    def _look(self, when: str) -> None:
        """Never two; where each runs is told."""
        found = self._watch.runs()
        for scene in self._well():
            where = found.get(scene.pid, [])
            self._story[scene].append(f"{when}: {'+'.join(where) or 'nowhere'}")
            if len(where) > 1:
                self._wrong[scene].append(f"two run {when}")

    def _resolve(self, scene: Scene) -> None:
        said = scene.ended
        if said is not None:
            self._story[scene].append(f"migrate {said['status']}")
        done = run_phaul(self.lab.src, "resolve", scene.id, TARGET, "--yes")
        self._story[scene].append(f"resolve {done.status}")
        told = f"; migrate: {said}" if said else ""
        assert done.status in (0, 1, 7), f"resolve: {done}{told}"

    def _judge(self, scene: Scene, where: list[str]) -> None:
        assert scene.victim is not None
        allowed = places(scene.moment, self.fault)
        words = ", ".join(place.value for place in allowed)
        assert len(where) < 2, "two run at the end"
        place = where[0] if where else Place.ENDED.value
        self._place[scene] = place
        both = self._watch.twice(scene.pid)
        assert not both, f"two ran at {both}"
        assert Place(place) in allowed, f"at the end: {place}, and not {words}"
        if place == Place.ENDED.value:
            return
        there = self.lab.src if place == "src" else self.lab.dst
        report = scene.victim.check(there)
        assert report["counter"] > scene.counter, report
        assert scene.victim.check(there)["counter"] > report["counter"]

    def _listed(self) -> None:
        """Nobody is told any more that something has to be settled."""
        entries = run_phaul(self.lab.src, "list", "--json", "--all").json["migrations"]
        states = {entry["id"]: entry["state"] for entry in entries}
        for scene in self._well():
            place = self._place.get(scene)
            state = states.get(scene.id)
            over = scene.moment is Moment.RUNNING or place == Place.DST.value
            wanted = "done" if over else "failed"
            if state != wanted:
                self._wrong[scene].append(f"`phaul list` says {state!r}")

    def _nothing_left(self) -> None:
        for guest in self.lab.guests:
            left = self._left(guest)
            until = time.monotonic() + GOES_S
            while left and time.monotonic() < until:
                time.sleep(1)
                left = self._left(guest)
                if left and all(line.startswith("/var/lib/phaul/incoming/") for line in left):
                    # Of an agent that was killed: the next one removes it, if it is not fresh.
                    guest.sh(_STALE)
                    run_phaul(self.lab.src, "check", TARGET)
                    time.sleep(1)
                    left = self._left(guest)
                if all(line.startswith("/var/") for line in left):
                    break  # files do not go by themselves
            for scene in self._well():
                if left:
                    self._wrong[scene].append(f"left on {guest.name}: {left}")
            if left:
                _logger.warning("left on %s: %s", guest.name, left)

    def _left(self, guest: Guest) -> list[str]:
        if self.fault is Fault.PHAUL:
            guest.sh(_SSH_LEFT)
        return [line for line in self._found(guest) if line not in self._before[guest.name]]

    def _found(self, guest: Guest) -> list[str]:
        return guest.sh(_LEFT).splitlines()
