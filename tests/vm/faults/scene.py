"""One migration between the guests, brought to a moment and held there.  Runs on the host.

It is held by stopping (SIGSTOP) who has the next step to do:

    connecting .. locked   phaul, by follower.py, at an event of its own
    restoring              the agent, by watcher.py, when it has begun to restore
    ready                  phaul; the agent goes on, and says Ready
    decided                phaul, by decided.py, before it kills
    gone                   ssh on the source, which has Commit to bring; phaul goes on
    releasing              CRIU on the destination, which is told to let go; phaul goes on
    running                phaul; CRIU on the destination goes on
"""

import json
import threading
import time
from contextlib import suppress
from typing import Any, Final

from lab import Command, Guest, Lab, LabError
from tests.vm.faults.cases import Moment
from tests.vm.subject import Subject
from tools.guests import ENVIRONMENT, PROJECT

__all__ = ["TARGET", "Scene"]

TARGET: Final = "root@dst"
HERE: Final = f"{PROJECT}/tests/vm/faults"
PYTHON: Final = ("python3", "-S", "-P")
PATIENCE_S: Final = 120.0
CONNECT_FAILED: Final = 4
_TRIES: Final = 5
ARRIVES_S: Final = 1.0
"""For Ready, from the agent's journal to the stopped phaul's pipe."""
_EVENTS: Final = {
    Moment.CONNECTING: ("connecting", "-"),
    Moment.PREFLIGHT: ("connected", "-"),
    Moment.IN_ROUND: ("round-progress", "0"),
    Moment.BETWEEN_ROUNDS: ("round-finished", "0"),
    Moment.FREEZING: ("cutover-started", "-"),
    Moment.LOCKED: ("held", "-"),
}


class Scene:
    """The migration of one victim with the PID `pid`; `moment` is where it is to be held."""

    def __init__(self, lab: Lab, moment: Moment, pid: int) -> None:
        self.lab = lab
        self.moment = moment
        self.pid = pid
        self.id = ""
        self.phaul = self.agent = 0
        self.seen: list[str] = []
        """The events of phaul."""
        self.ended: dict[str, Any] | None = None
        """What phaul came to: status, stdout, stderr."""
        self.noted = ""
        """What the journals said when it was held."""
        self.victim: Subject | None = None
        self.counter = self.counter_at = 0
        self._stopped: list[tuple[Guest, int]] = []
        self._changed = threading.Condition()
        self._held = self._lost = False

    # -- to the moment

    def start(self) -> None:
        """Start the victim."""
        options = ("--size-mb", 16, "--rate", 40, "--working-set-pages", 40)
        for _ in range(_TRIES):  # whatever else the guest starts may take its PID
            self.victim = Subject(
                self.lab.src,
                "dirtier",
                *options,
                "--heartbeat-us",
                5000,
                pid=self.pid,
                report=f"victim-{self.pid}",
            )
            if self.victim.pid == self.pid:
                break
            self.victim.stop(self.lab.src)
        assert self.victim is not None
        assert self.victim.pid == self.pid, f"PID {self.victim.pid} instead of {self.pid}"
        report = self.victim.check(self.lab.src)
        self.counter, self.counter_at = report["counter"], report["counter_at"]

    def bring(self) -> None:
        """Migrate it, up to the moment; where the guests are too slow to connect, once more."""
        try:
            self._bring()
        except AssertionError:
            if self.ended is None or self.ended["status"] != CONNECT_FAILED:
                raise
            self.id, self.ended, self._lost, self.seen = "", None, False, []
            self._bring()

    def _bring(self) -> None:
        event, number = _EVENTS.get(self.moment, ("-", "-"))
        words = [str(self.pid), TARGET, "--max-downtime", "60s"]
        if self.moment is Moment.IN_ROUND:
            words += ["--bandwidth", "4M"]
        told = "decided" if self.moment is Moment.DECIDED else event
        argv = [*PYTHON, f"{HERE}/follower.py", told, number, *words]
        self._follow = threading.Thread(target=self._hear, args=(argv,), daemon=True)
        self._follow.start()
        self._until(lambda: self.id != "", "an id")
        if event != "-":
            self._until(lambda: self._held, event)
            self._stopped.append((self.lab.src, self.phaul))
        else:
            self._restore()
        self.noted = f"{self.here().get('state')}/{self.there().get('state')}"

    def _restore(self) -> None:
        """From the restore on."""
        src, dst = self.lab.guests
        with dst.spawn([*PYTHON, f"{HERE}/watcher.py", self.id]) as watcher:
            said = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
            said.start()
            self._until(lambda: self.agent != 0, "restore")
        self._stopped.append((dst, self.agent))
        if self.moment is Moment.RESTORING:
            return
        self._stop(src, self.phaul)
        self._go_on(dst, self.agent)
        self._poll(lambda: self.there().get("pid") is not None, "Ready")
        time.sleep(ARRIVES_S)
        match self.moment:
            case Moment.DECIDED:
                self._go_on(src, self.phaul)
                self._poll(lambda: self.here()["state"] == "decided", "the decision")
                # It stops a moment after it has written so.
                self._poll(lambda: "T" in src.sh(f"ps -o stat= -p {self.phaul}"), "its stop")
                self._stopped.append((src, self.phaul))
            case Moment.GONE:
                self._stop(src, *below(src, self.phaul, "ssh"))
                self._go_on(src, self.phaul)
                self._until(lambda: "source-gone" in self.seen, "the kill")
            case Moment.RELEASING | Moment.RUNNING:
                held = below(dst, self.agent, "criu")
                self._stop(dst, *held)
                self._go_on(src, self.phaul)
                self._poll(lambda: self.there()["state"] == "releasing", "the release")
                if self.moment is Moment.RUNNING:
                    self._stop(src, self.phaul)
                    self._go_on(dst, *held)
                    self._poll(lambda: self.there().get("state") == "running", "it to run there")
            case _:
                pass

    def _watch(self, watcher: Command) -> None:
        with suppress(LabError):
            for line in watcher.stdout.lines(PATIENCE_S):
                with self._changed:
                    self.agent = int(line)
                    self._changed.notify_all()

    def _hear(self, argv: list[str]) -> None:
        try:
            with self.lab.src.spawn(argv, env=ENVIRONMENT) as command:
                for line in command.stdout.lines(600):
                    with self._changed:
                        self._take(json.loads(line))
                        self._changed.notify_all()
        except (LabError, ValueError):
            pass
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def _take(self, said: dict[str, Any]) -> None:
        if "pid" in said:
            self.phaul = said["pid"]
        if "stopped" in said:
            self._held = True
        if "event" in said:
            self.seen.append(said["event"]["event"])
            self.id = self.id or said["event"].get("id", "")
        if "status" in said:
            self.ended = said

    def _until(self, true: Any, what: str) -> None:  # noqa: ANN401 (a predicate)
        with self._changed:
            self._changed.wait_for(lambda: true() or self._lost or self.ended, PATIENCE_S)
            assert true(), f"no {what}: {self.seen[-3:]}, {self.ended}"

    def _poll(self, true: Any, what: str) -> None:  # noqa: ANN401 (a predicate)
        until = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < until, f"no {what}: {self.here()}, {self.there()}"
            time.sleep(0.2)

    def _stop(self, guest: Guest, *pids: int) -> None:
        assert pids
        guest.sh(f"kill -STOP {' '.join(map(str, pids))}")
        self._stopped += [(guest, pid) for pid in pids]

    def _go_on(self, guest: Guest, *pids: int) -> None:
        guest.sh(f"kill -CONT {' '.join(map(str, pids))}")
        for pid in pids:
            self._stopped.remove((guest, pid))

    # -- after it

    def thaw(self) -> None:
        """Let all go on that was stopped and is still there."""
        for guest, pid in self._stopped:
            if guest.running:
                guest.run(["kill", "-CONT", str(pid)])
        self._stopped.clear()

    def kill(self, guest: Guest, comm: str = "") -> None:
        """Kill (SIGKILL) phaul or the agent, or the processes with that name below it."""
        if guest is self.lab.src:
            root = self.phaul
        else:
            root = self.agent = self.agent or self.there()["agent"]["pid"]
        pids = below(guest, root, comm) if comm else [root]
        assert pids, f"no {comm} below {root}"
        guest.sh(f"kill -KILL {' '.join(map(str, pids))}")

    def wait(self, timeout: float) -> None:
        """Wait for phaul's end, or its machine's."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._lost, timeout)
            assert self.ended or self._lost, f"phaul did not end in {timeout:g} s: {self.seen[-1:]}"

    def here(self) -> dict[str, Any]:
        """The source's journal."""
        return _journal(self.lab.src, f"/var/lib/phaul/migrations/{self.id}/journal.json")

    def there(self) -> dict[str, Any]:
        """The destination's journal."""
        return _journal(self.lab.dst, f"/var/lib/phaul/incoming/{self.id}-*/journal.json")

    def stop(self) -> None:
        """End what is left, wherever it is."""
        for guest in self.lab.guests:
            with suppress(LabError, AssertionError):
                if self.victim is not None:
                    self.victim.stop(guest)
        with suppress(LabError):
            if self.phaul and self.ended is None and not self._lost:
                self.lab.src.run(["kill", "-KILL", str(self.phaul)])


def _journal(guest: Guest, path: str) -> dict[str, Any]:
    """The newest of what is written in a journal, and of the note beside it."""
    folder = path.removesuffix("journal.json")
    text = guest.sh(
        f"tail -n +1 -q {folder}*journal.json {folder}.note-journal.json 2>/dev/null; true"
    )
    found = [json.loads(line) for line in text.replace("}{", "}\n{").splitlines() if line]
    newest: dict[str, Any] = max(found, key=lambda record: record.get("serial", 0), default={})
    return newest


def below(guest: Guest, root: int, comm: str) -> list[int]:
    """The processes with that name among the descendants of `root`."""
    rows = [line.split(None, 2) for line in guest.sh("ps -eo pid=,ppid=,comm=").splitlines()]
    tree = {root}
    for _ in rows:
        tree |= {int(pid) for pid, parent, _ in rows if int(parent) in tree}
    return [int(pid) for pid, _, name in rows if int(pid) in tree and name.strip() == comm]
