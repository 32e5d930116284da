"""The migrations that came to this machine, as `list`, `status` and `resolve` speak of them.

Runs on the destination.
"""

import time
from typing import Final

from phaul.cli.migrations import plain
from phaul.destination.incoming import Arrival, arrivals, base_directory
from phaul.protocol.ownership import DestinationState
from phaul.report.units import duration

__all__ = ["arrival_json", "arrival_text", "arrived"]

_HELD: Final = "a copy is held still"
_WORDS: Final = {
    DestinationState.RECEIVING: "is being received",
    DestinationState.RESTORING: "is being restored",
    DestinationState.READY: _HELD,
    DestinationState.RELEASING: "was let go, its agent died at that",
    DestinationState.RUNNING: "runs here",
    DestinationState.IMAGES: "its images are kept",
    DestinationState.AGAIN: "is being restored again",
    DestinationState.DISCARDED: "is being removed",
}
_WAITS: Final = (
    DestinationState.READY,
    DestinationState.RELEASING,
    DestinationState.IMAGES,
    DestinationState.AGAIN,
)


def arrived(name: str = "") -> tuple[Arrival, ...]:
    """Those that are here, or those whose id begins so."""
    return tuple(a for a in arrivals(base_directory()) if a.record.id.startswith(name))


def arrival_text(arrival: Arrival) -> str:
    """`k3v9: dirtier, PID 4242, from host1: a copy is held still, for 3.0 s; on host1: ...`."""
    record = arrival.record
    words = _WORDS[record.state]
    if record.state is DestinationState.READY and not arrival.living:
        words = "its agent died, its images are kept"
    name = plain(record.name) or "a process"
    pid = record.pid or (record.pids[0] if record.pids else None)
    if pid is not None:
        name += f", PID {pid}"
    since = duration(max(time.time() - record.written_unix, 0.0))
    text = f"{record.id}: {name}, from {plain(record.source)}: {words}, for {since}"
    if record.state in _WAITS:
        text += f"; to settle it, on {plain(record.source)}: `phaul resolve {record.id}`"
    return text


def arrival_json(arrival: Arrival) -> dict[str, object]:
    """The same for programs.  The key is not in it: whoever has that may settle it."""
    record = arrival.record
    return {
        "id": record.id,
        "source": record.source,
        "name": record.name,
        "pid": record.pid,
        "state": record.state.value,
        "agent_alive": arrival.living,
        "durable": record.durable,
        "path": str(arrival.path),
        "written_unix": record.written_unix,
    }
