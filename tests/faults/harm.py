"""Does a fault: one `Harm` for one case, called by it at each step."""

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from tests.faults.crew import Child, children, signal_outer
from tests.faults.lanehosts import DISK
from tests.faults.plan import EVER, LATE, FaultPoint, Kind
from tests.faults.proxy import Flow, Link, Wound
from tests.hosts.machine import Hosts

__all__ = ["Harm", "Stage"]

_FILLER: Final = DISK / ".filler"
_CHUNK: Final = 1 << 20
_PROCESSES: Final = ("source", "agent", "settle")


class Stage(Protocol):
    """What a fault happens to: the case, as its fault sees it."""

    hosts: Hosts
    links: dict[str, Link]
    refused: bool

    def child(self, role: str) -> Child | None:
        """The newest process in that role."""

    def criu(self, role: str) -> int | None:
        """The PID here of the CRIU that does this."""

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something done later."""

    @property
    def pid(self) -> int:
        """The victim's."""


class Harm:
    """One fault; `done` is whether it has happened, `undo` takes back what would stay."""

    def __init__(self, fault: FaultPoint, stage: Stage) -> None:
        self.fault = fault
        self.done = False
        self._stage = stage
        self.stopped: int | None = None
        self.role_stopped = ""
        self.filled: list[str] = []
        self.taken = False

    def prepare(self, links: dict[str, Link]) -> None:
        """The channels were just made: put a fault at a byte where it belongs."""
        fault = self.fault
        if fault.byte < 0 or self.done:
            return
        link = links[fault.channel]
        flow = link.ask if fault.flow == "ask" else link.answer

        def cause() -> None:
            self._channel(link, flow)

        wound = Wound(fault.byte, None if fault.kind is Kind.CORRUPT else cause)
        if fault.kind is Kind.CORRUPT:
            wound.hurt = self._happened
        flow.wound = wound

    def _happened(self) -> None:
        self.done = True

    def at(self, step: str) -> None:
        """A step was reached: is it the one?"""
        if self.done or self.fault.byte >= 0 or step != self.fault.at:
            return
        stage, fault = self._stage, self.fault
        match fault.kind:
            case Kind.KILL | Kind.STOP | Kind.EXIT:
                self._process()
            case Kind.CUT | Kind.STALL:
                link = stage.links[fault.channel]
                self._channel(link, link.ask if fault.flow == "ask" else link.answer)
            case Kind.CORRUPT:
                link = stage.links[fault.channel]
                flow = link.ask if fault.flow == "ask" else link.answer
                flow.wound = Wound(flow.passed + fault.number, None, self._happened)
            case Kind.LINK:
                self._link()
            case Kind.DISK:
                self._fill()
            case Kind.MEMORY:
                if pid := stage.criu(fault.who):
                    most = fault.number << 20
                    resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
                    self.done = True
            case Kind.TAKEN:
                stage.hosts.destination.take_pid(stage.pid)
                self.taken = self.done = True
            case _:
                pass

    def _process(self) -> None:
        stage, fault = self._stage, self.fault
        child = stage.child(fault.who) if fault.who in _PROCESSES else None
        pid = child.pid if child else stage.criu(fault.who)
        if pid is None or (child is not None and child.status is not None):
            return
        self.done = True
        if fault.kind is Kind.EXIT:  # the wrapper then leaves with its status
            for real in children(pid):
                signal_outer(real, signal.SIGKILL)
            return
        if fault.kind is Kind.KILL:
            if child is not None:
                child.killed = True
            signal_outer(pid, fault.number if fault.number > 0 else signal.SIGKILL)
            return
        signal_outer(pid, signal.SIGSTOP)
        self.stopped, self.role_stopped = pid, fault.who
        if fault.seconds is not None:
            stage.after(fault.seconds, self.go_on)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        if self.stopped is not None:
            signal_outer(self.stopped, signal.SIGCONT)
            self.stopped = None

    def wake(self) -> None:
        """Now a person looks after what stands still: it is killed, or goes on if it was LATE."""
        if self.stopped is not None and self.fault.time == EVER:
            for role in _PROCESSES:
                child = self._stage.child(role)
                if child is not None and child.pid == self.stopped:
                    child.killed = True
            signal_outer(self.stopped, signal.SIGKILL)
            self.stopped = None
        self.go_on()

    @property
    def late(self) -> bool:
        """Whether something is to go on only after the settlement."""
        return self.stopped is not None and self.fault.time == LATE

    def _channel(self, link: Link, flow: Flow) -> None:
        fault = self.fault
        self.done = True
        if fault.kind is Kind.CUT:
            link.cut(fault.who or "both")
            return
        link.stall(flow)
        if fault.seconds is not None:
            self._stage.after(fault.seconds, link.resume)

    def _link(self) -> None:
        """Both channels stop, as when a cable is pulled; both ends notice it by their silence."""
        stage, fault = self._stage, self.fault
        self.done = True
        for link in stage.links.values():
            if fault.who:
                link.cut(fault.who)
            else:
                link.stall()
        stage.refused = True
        if fault.seconds is not None:

            def back() -> None:
                stage.refused = False
                if not fault.who:
                    for link in stage.links.values():
                        link.resume()

            stage.after(fault.seconds, back)

    def _fill(self) -> None:
        host = self._stage.hosts.source
        if self.fault.who == "destination":
            host = self._stage.hosts.destination
        path = host.path(_FILLER)
        self.filled.append(str(path))
        self.done = True
        with path.open("wb", buffering=0) as file, suppress(OSError):
            size = 0
            while True:
                os.posix_fallocate(file.fileno(), size, _CHUNK)
                size += _CHUNK
        with path.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def undo(self) -> None:
        """Make room again; the other things stay until they are settled."""
        for path in self.filled:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
        self.filled.clear()
