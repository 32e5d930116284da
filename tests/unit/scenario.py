"""What the fake CRIU is to do, as typed values, and what it noted of what it was asked.

A test writes a scenario to a file, the fake reads it at its start; both import this.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Dump", "Fault", "Note", "Restore", "Scenario", "read_notes"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """How a request goes wrong.

    `fail`       an answer that says no, with `message` and `errno`
    `signal`     the worker dies by signal `number`
    `exit`       the worker exits with status `number`
    `hang`       no answer until the socket is closed; then it undoes and ends
    `stubborn`   no answer, ever: only SIGKILL ends it
    `garbage`    an answer that is no message
    `truncated`  an answer that is cut
    `empty`      a packet of no bytes
    """

    kind: Literal["fail", "signal", "exit", "hang", "stubborn", "garbage", "truncated", "empty"]
    log: str = ""
    message: str = ""
    raw_message: str = ""
    """In hexadecimal, what takes the place of `message` and may be no UTF-8."""
    errno: int = 0
    number: int = 9
    stderr: str = ""


@dataclass(frozen=True, kw_only=True)
class Dump:
    """A pre-dump or a dump: its statistics, the pages that it sends, and its fault.

    `unfounded`: it says that one more is in the round before, which has it not: what receives that
    breaks the round off.
    `fault_at`: "begin", before any memory is sent; "sent", after; "released", after `post-dump`
    was accepted and before the kill; "killed", after the kill.
    """

    pages_written: int = 100
    shpages_written: int = 0
    pages_skipped_parent: int = 0
    freezing_us: int = 1000
    frozen_us: int = 2000
    send_pages: int = 2
    unfounded: bool = False
    write_stats: bool = True
    reach_post_dump: bool = True
    network_lock: bool = False
    fault: Fault | None = None
    fault_at: Literal["begin", "sent", "released", "killed"] = "begin"


@dataclass(frozen=True, kw_only=True)
class Restore:
    """A restore; the restored process is one that stands still until it is killed."""

    fault: Fault | None = None
    fault_at: Literal["begin", "released"] = "begin"
    tell_pid: bool = True
    network_unlock: bool = False


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """All of it.  `rounds` are taken in order, the last one again and again."""

    notes: str
    """The file to which every request is noted, a JSON line each."""
    version: tuple[int, int, int] = (4, 2, 1)
    tell_version: bool = True
    mem_track: bool = True
    lazy_pages: bool = True
    start: Fault | None = None
    check: Fault | None = None
    features: Fault | None = None
    cpuinfo: Fault | None = None
    rounds: tuple[Dump, ...] = (Dump(), Dump(pages_written=10))
    final: Dump = field(default_factory=lambda: Dump(pages_written=5))
    restore: Restore = field(default_factory=Restore)

    def write(self, path: Path) -> None:
        """Write the scenario to `path`."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Scenario":
        """The scenario that `write` wrote."""
        wire = json.loads(path.read_text())
        for name in ("start", "check", "features", "cpuinfo"):
            wire[name] = _fault(wire[name])
        wire["rounds"] = tuple(Dump(**_with_fault(part)) for part in wire["rounds"])
        wire["final"] = Dump(**_with_fault(wire["final"]))
        wire["restore"] = Restore(**_with_fault(wire["restore"]))
        return cls(**wire)


def _fault(wire: dict[str, Any] | None) -> Fault | None:
    return Fault(**wire) if wire else None


def _with_fault(wire: dict[str, Any]) -> dict[str, Any]:
    return {**wire, "fault": _fault(wire["fault"])}


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing that the fake was asked, or did: `what` is the request's name, or of the deed."""

    what: str
    worker: int
    images: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    accepted: bool | None = None


def read_notes(path: Path) -> list[Note]:
    """What all fakes of a scenario noted, in order."""
    if not path.exists():
        return []
    return [Note(**json.loads(line)) for line in path.read_text().splitlines()]
