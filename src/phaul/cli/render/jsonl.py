"""`--events jsonl`: each event as one line of JSON.

Used on the source while a migration runs.  The lines are described by `docs/schema/event.json`.
"""

import os
import select
import time
from typing import IO, Any, Final

import msgspec

from phaul.cli.render.background import Background
from phaul.report import Event, RoundProgress

__all__ = ["Envelope", "EventWriter"]

_MOST_WAITING: Final = 1000


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One line: the version of its form, when it happened (seconds since the epoch), and what."""

    v: int = 1
    time: float
    event: Event


class EventWriter:
    """Writes events to a descriptor or a stream, which stay the caller's.  Never raises.

    A reader that is slow gets all events but, when a thousand wait, no more `round-progress`.  One
    that does not read at all does not hold the migration, only `close`, for two seconds.
    """

    def __init__(self, target: int | IO[str] | IO[bytes]) -> None:
        self._target = target
        self._background: Background[Envelope] = Background(self._write, name="phaul-events")

    def on_event(self, event: Event) -> None:
        """Write `event`, soon."""
        if isinstance(event, RoundProgress) and self._background.backlog > _MOST_WAITING:
            return
        self._background.put(Envelope(time=time.time(), event=event))

    def close(self) -> bool:
        """Wait until all is written; returns whether it was."""
        return self._background.close()

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, envelope: Envelope) -> None:
        line = msgspec.json.encode(envelope) + b"\n"
        if isinstance(self._target, int):
            _write_all(self._target, line)
            return
        stream: IO[Any] = self._target
        if hasattr(stream, "encoding"):
            stream.write(line.decode())
        else:
            stream.write(line)
        stream.flush()


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select((), (descriptor,), ())
