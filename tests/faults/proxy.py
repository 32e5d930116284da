"""What stands between the two ends of a channel: passes bytes on, and can hurt them.

    source <--socket pair--> Link <--socket pair--> agent

A link has two flows.  On the control channel a flow passes whole frames and knows each message by
name; on the memory channel only bytes.  A fault at a byte happens exactly there: what stands before
it has been passed on, what follows has not.
"""

import json
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from phaul.errors import ProtocolError
from phaul.protocol.frames import Decoder, Frame, Kind, pack

__all__ = ["Flow", "Link", "Wound"]

_READ: Final = 1 << 18
_MOST_WAITING: Final = 1 << 20
OnStep = Callable[[str], None]


@dataclass
class Wound:
    """What happens to a flow at its `byte`: `cause` is called, or a bit is flipped there."""

    byte: int
    cause: Callable[[], None] | None = None
    hurt: Callable[[], None] | None = None
    """Told when a bit was flipped."""


@dataclass(eq=False)
class Flow:
    """One direction: read from `source`, written to `target`; both are its link's."""

    name: str
    source: socket.socket
    target: socket.socket
    on_step: OnStep | None = None
    wound: Wound | None = None
    passed: int = 0
    stalled: bool = False
    ended: bool = False
    _waiting: bytearray = field(default_factory=bytearray)
    _held: list[tuple[str, bytes]] = field(default_factory=list)
    _decoder: Decoder | None = field(default_factory=Decoder)
    _asked: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    peer: "Flow | None" = None
    shut: bool = False

    def is_stalled(self) -> bool:
        """Whether nothing is passed on."""
        return self.stalled

    @property
    def wants_read(self) -> bool:
        return not self.ended and not self.stalled and len(self._waiting) < _MOST_WAITING

    @property
    def wants_write(self) -> bool:
        return bool(self._waiting) and not self.stalled

    def read(self) -> None:
        """Take what is there; it goes on unless a fault is in the way."""
        try:
            data = self.source.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self._finish()
            return
        if self.on_step is None or self._decoder is None:
            self._pass(data)
            return
        try:
            frames = self._decoder.feed(data)
        except ProtocolError:  # hurt already: from here on only bytes
            self._decoder = None
            self._pass(data)
            return
        self._held += [(self._name(frame), pack(frame)) for frame in frames]
        self._go_on()

    def _go_on(self) -> None:
        assert self.on_step is not None
        while self._held and not self.stalled:
            name, data = self._held.pop(0)
            if name:
                self.on_step(f"{name}-")
                if self.is_stalled():
                    self._held.insert(0, ("", data))
                    return
            self._pass(data)
            self.write()
            if name:
                self.on_step(f"{name}+")

    def _name(self, frame: Frame) -> str:
        if frame.kind is Kind.RAW:
            return ""
        with suppress(ValueError):
            tag = str(json.loads(frame.payload).get("is", ""))
            if tag == "alive":
                return ""
            if self.name == "ask":
                name = f"ask/{tag}"
                if self.peer is not None and tag != "image":
                    self.peer._asked.append(tag)
            else:
                asked = self._asked.pop(0) if self._asked else tag
                name = f"answer/{asked}"
            number = self._counts[name] = self._counts.get(name, 0) + 1
            return name if number == 1 else f"{name}#{number}"
        return ""

    def _pass(self, data: bytes) -> None:
        wound = self.wound
        if wound is not None and self.passed + len(data) > wound.byte:
            self.wound = None
            at = wound.byte - self.passed
            if wound.cause is None:
                data = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
                if wound.hurt is not None:
                    wound.hurt()
            else:
                self._put(data[:at])
                self.write()
                wound.cause()
                data = data[at:]
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._waiting += data
        self.passed += len(data)

    def write(self) -> None:
        """Write what waits, as much as there is room for."""
        while self._waiting and not self.stalled:
            try:
                sent = self.target.send(self._waiting)
            except BlockingIOError:
                return
            except OSError:
                self._waiting.clear()
                self.ended = True
                # Who writes to us learns that nobody reads any more.
                with suppress(OSError):
                    self.source.shutdown(socket.SHUT_RD)
                return
            del self._waiting[:sent]
        self._finish()

    def _finish(self) -> None:
        if self.ended and not self._waiting and not self.stalled and not self.shut:
            self.shut = True
            with suppress(OSError):
                self.target.shutdown(socket.SHUT_WR)

    def resume(self) -> None:
        """Go on after a stall."""
        self.stalled = False
        if self.on_step is not None and self._held:
            self._go_on()
        self.write()


class Link:
    """One channel: `ask` towards the agent, `answer` towards the source."""

    def __init__(self, selector: selectors.BaseSelector, on_step: OnStep | None) -> None:
        self.theirs_source, near = socket.socketpair()
        far, self.theirs_agent = socket.socketpair()
        self._near, self._far = near, far
        self._selector = selector
        self.ask = Flow("ask", near, far, on_step)
        self.answer = Flow("answer", far, near, on_step)
        self.ask.peer = self.answer
        self.closed = False
        for sock in (near, far):
            sock.setblocking(False)
        self.watch()

    @property
    def flows(self) -> tuple[Flow, Flow]:
        return self.ask, self.answer

    def watch(self) -> None:
        """Tell the selector what is waited for now."""
        if self.closed:
            return
        for sock, inward, outward in (
            (self._near, self.ask, self.answer),
            (self._far, self.answer, self.ask),
        ):
            events = selectors.EVENT_READ if inward.wants_read else 0
            events |= selectors.EVENT_WRITE if outward.wants_write else 0
            known = self._selector.get_map().get(sock)
            if known is None and events:
                self._selector.register(sock, events, self)
            elif known is not None and not events:
                self._selector.unregister(sock)
            elif known is not None and known.events != events:
                self._selector.modify(sock, events, self)

    def ready(self, sock: object, mask: int) -> None:
        """A socket is ready: move bytes."""
        inward, outward = (self.ask, self.answer) if sock is self._near else (self.answer, self.ask)
        if mask & selectors.EVENT_WRITE and not self.closed:
            outward.write()
        if mask & selectors.EVENT_READ and not self.closed and inward.wants_read:
            inward.read()
        self.watch()

    def stall(self, *flows: Flow) -> None:
        """Pass nothing on from now."""
        for flow in flows or self.flows:
            flow.stalled = True
        self.watch()

    def resume(self) -> None:
        """Pass on what waits, and what comes."""
        for flow in self.flows:
            if not self.closed and flow.stalled:
                flow.resume()
        self.watch()

    def cut(self, who: str = "both") -> None:
        """Break it: `who` ("source", "agent", "both") sees it end; the other hears nothing more."""
        for flow in self.flows:
            flow.stalled = True
        for name, sock in (("source", self._near), ("agent", self._far)):
            if who in (name, "both"):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self.watch()

    def close(self) -> None:
        """Close all; who is still there sees the end."""
        if self.closed:
            return
        for sock in (self._near, self._far):
            with suppress(KeyError, ValueError):
                self._selector.unregister(sock)
            sock.close()
        self.closed = True
        self.drop_theirs()

    def drop_theirs(self) -> None:
        """Close the ends that were handed to the two processes."""
        self.theirs_source.close()
        self.theirs_agent.close()
