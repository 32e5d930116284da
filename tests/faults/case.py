"""One case: a victim, a migration of it, a fault, and what comes of it.

Runs in a lane, on host1.  All that is waited for goes through `turn`: the channels' bytes, what the
processes under test say, their ends, and what is to be done later.
"""

import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.faults.crew import Child, Zygote
from tests.faults.harm import Harm
from tests.faults.plan import FaultPoint, Kind
from tests.faults.proxy import Link
from tests.faults.wire import pair, take, tell
from tests.hosts.machine import Hosts

__all__ = ["Case"]

LOGS: Final = "/var/tmp/faults"
_ALWAYS: Final = (Kind.NONE, Kind.FAULT, Kind.MISSING)


class Case:
    """The processes of one case and the channels between them; `close` it at the end."""

    def __init__(
        self, hosts: Hosts, zygotes: dict[str, Zygote], fault: FaultPoint, victim: dict[str, Any]
    ) -> None:
        self.hosts = hosts
        self.fault = fault
        self.harms = [Harm(fault, self)]
        if fault.then is not None:
            self.harms.append(Harm(fault.then, self))
        self.links: dict[str, Link] = {}
        self.refused = False
        self.children: list[Child] = []
        self.steps: list[str] = []
        self.on_gone: Callable[[], None] = lambda: None
        self.said: dict[str, Any] = {}
        self.victim = victim
        self._old_links: list[Link] = []
        self._zygotes = zygotes
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, Callable[[], None]]] = []
        for zygote in zygotes.values():
            self._selector.register(zygote.sock, selectors.EVENT_READ, zygote)

    @property
    def pid(self) -> int:
        """The victim's."""
        return int(self.victim["pid"])

    # -- what the fault needs

    def child(self, role: str) -> Child | None:
        """The newest process in that role."""
        return next((child for child in reversed(self.children) if child.role == role), None)

    def criu(self, role: str) -> int | None:
        """The PID here of the CRIU that does this."""
        for child in reversed(self.children):
            if inner := child.criu.get(role):
                return child.find(inner)
        return None

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something done later."""
        self._later.append((time.monotonic() + seconds, what))

    # -- what goes on

    def start(self, role: str, **arguments: object) -> Child:
        """Start a process on host1."""
        return self._spawn("host1", role, {**self.victim, **arguments}, ())

    def turn(self, most: float) -> None:
        """Do what there is to do, for at most so many seconds."""
        now = time.monotonic()
        due = min((at for at, _ in self._later), default=now + most)
        for key, mask in self._selector.select(max(0.0, min(most, due - now))):
            match key.data:
                case Link() as link:
                    link.ready(key.fileobj, mask)
                case Zygote() as zygote:
                    zygote.heard()
                case Child() as child:
                    self._hear(child)
        now = time.monotonic()
        ready = [what for at, what in self._later if at <= now]
        self._later = [(at, what) for at, what in self._later if at > now]
        for what in ready:
            what()

    def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Go on until something is so; whether it is, within so many seconds."""
        end = time.monotonic() + limit
        while not condition() and time.monotonic() < end:
            self.turn(0.05)
        return condition()

    def go_on(self, seconds: float) -> None:
        """Go on for so long."""
        self.until(lambda: False, seconds)

    def _step(self, step: str) -> None:
        self.steps.append(step)
        if step == "event/source-gone":
            self.on_gone()
        for harm in self.harms:
            harm.at(step)

    def _spawn(
        self, host: str, role: str, arguments: dict[str, Any], fds: tuple[int, ...]
    ) -> Child:
        log = f"{LOGS}/{len(self.children)}-{role}.log"
        child = self._zygotes[host].spawn(role, {**arguments, "log": log}, fds)
        child.log = Path(log)
        self.children.append(child)
        self._selector.register(child.leash, selectors.EVENT_READ, child)
        return child

    def _hear(self, child: Child) -> None:
        message, fds = take(child.leash)
        assert not fds
        if message is None:
            self._selector.unregister(child.leash)
            return
        if step := message.get("at"):
            if role := message.get("role"):
                child.criu[role] = message["criu"]
            first = child in self.children[:2]  # the source, and its agent
            self._step(step if first else f"settle/{step}")
            self._answer(child, {})
        elif message.get("do") == "connect":
            self._connect(child)
        elif message.get("do") == "memory":
            self._memory(child, message["token"])
        else:
            child.token = message.get("token", child.token)
            self.said.update(message)

    def _answer(self, child: Child, message: dict[str, Any], *fds: int) -> None:
        with suppress(OSError):  # the fault was the child's end
            tell(child.leash, message, fds)

    def _connect(self, child: Child) -> None:
        if self.refused:
            self._answer(child, {"refused": "the link is down"})
            return
        self._old_links += self.links.values()
        first = not self._old_links
        on_step = self._step if first else self._later_step
        control, memory = Link(self._selector, on_step), Link(self._selector, None)
        self.links = {"control": control, "memory": memory}
        if first:
            self.harms[0].prepare(self.links)
        door, theirs = pair()
        with theirs:
            fds = (control.theirs_agent.fileno(), theirs.fileno())
            agent = self._spawn("host2", "agent", self.victim["agent"], fds)
        agent.door = door
        self._answer(child, {}, control.theirs_source.fileno())
        control.drop_theirs()

    def _later_step(self, step: str) -> None:
        """A step of a connection that is not the first, which has names of its own."""
        self._step(f"settle/{step}")

    def _memory(self, child: Child, token: str) -> None:
        agent, link = self.child("agent"), self.links["memory"]
        if self.refused or agent is None or agent.token != token or agent.door is None:
            self._answer(child, {"refused": "the token is wrong, or the link is down"})
            return
        try:
            tell(agent.door, {}, [link.theirs_agent.fileno()])
        except OSError:
            self._answer(child, {"refused": "the agent has ended"})
            return
        self._answer(child, {}, link.theirs_source.fileno())
        link.drop_theirs()

    def join(self) -> None:
        """The link is there again."""
        self.refused = False

    def wake(self) -> None:
        """A person looks after what stands still."""
        for harm in self.harms:
            harm.wake()

    def agents(self) -> list[Child]:
        """The agents that have not ended."""
        return [child for child in self.children if child.role == "agent" and child.status is None]

    def close(self) -> None:
        """End all of it, and let go of it."""
        for harm in self.harms:
            harm.undo()
            harm.go_on()
        for child in self.children:
            if child.status is None:
                child.send(signal.SIGKILL)
                child.send(signal.SIGCONT)
        self.until(lambda: all(child.status is not None for child in self.children), 3)
        for child in self.children:
            child.close()
        for link in [*self._old_links, *self.links.values()]:
            link.close()
        self._selector.close()

    @property
    def fired(self) -> bool:
        """Whether the fault has happened."""
        return all(harm.done or harm.fault.kind in _ALWAYS for harm in self.harms)
