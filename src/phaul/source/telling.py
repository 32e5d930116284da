"""Who follows a migration is told: each event as it happens, and how far a round has come.

Runs on the source, from connecting to the end.
"""

import logging
from typing import Final

import anyio

from phaul.pages.channel import MemoryChannel
from phaul.report import Event, RoundFinished, RoundProgress, RoundStarted
from phaul.report.events import EventHandler
from phaul.transport.base import SourceEnd

__all__ = ["Telling"]

_EVERY_S: Final = 0.25

_logger = logging.getLogger("phaul")


class Telling:
    """Hands events on to `handler`.

    `expected` is about what the next round will send, in bytes; `channel` is the memory channel,
    once there is one.
    """

    def __init__(self, handler: EventHandler) -> None:
        self._handler = handler
        self._round: RoundStarted | None = None
        self.expected = 0
        self.channel: MemoryChannel | None = None

    def emit(self, event: Event) -> None:
        """Tell an event; raises what the handler does."""
        match event:
            case RoundStarted():
                self._round = event
            case RoundFinished(round=done):
                self._round = None
                self.expected = (
                    done.sent_bytes
                    if done.dirty_rate is None
                    else min(int(done.dirty_rate * done.seconds), self.expected)
                )
            case _:
                pass
        self._handler(event)

    def at_end(self, event: Event) -> None:
        """Tell an event when nothing may fail any more."""
        try:
            self._handler(event)
        except Exception:
            _logger.exception("the event handler failed at %s", type(event).__name__)

    async def progress(self, end: SourceEnd) -> None:
        """Tell from time to time how far the round under way has come, until it is cancelled."""
        seen: RoundStarted | None = None
        base = 0
        while True:
            await anyio.sleep(_EVERY_S)
            counted = self.channel.memory_bytes if self.channel is not None else None
            sent, current = end.memory_sent if counted is None else counted, self._round
            if sent is None or current is None:
                continue
            if current is not seen:
                seen, base = current, sent
                continue
            self.emit(
                RoundProgress(
                    number=current.number, sent_bytes=sent - base, expected_bytes=self.expected
                )
            )
