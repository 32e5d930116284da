"""The report of a migration: its rounds, its downtime by parts, how it went and why.

Made on the source at the end.  Times are seconds, memory is bytes or pages of 4 KiB.
"""

from typing import Final

import msgspec

from phaul.plan import Plan, Way
from phaul.protocol.preflight import Finding
from phaul.report.units import duration, plural

__all__ = [
    "PAGE_SIZE",
    "Downtime",
    "Drained",
    "Followed",
    "Report",
    "Round",
    "SlowStep",
    "Slowdown",
    "Split",
    "Way",
]

PAGE_SIZE: Final = 4096
_MIB: Final = 1 << 20


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round of the pre-copy, or the final dump (`number` is its images directory's).

    `pages` is private memory that was sent, `shared_pages` shared memory; `skipped_pages` were
    clean and are in an earlier round.  `frozen_s` is how long the process stood still, `seconds`
    the whole round until it is written over there.  `wire_bytes` is what crossed the network both
    ways, None where only CRIU moved bytes.  `begun_s` is when it began, after the migration did.
    `dirty_rate` is what the process dirtied in bytes a second, `predicted_downtime_s` what a
    cutover right after it would have cost; both None where they are not known yet.  `share` is how
    much of its CPU time the process had in it: 1 where it was not slowed down.  `huge_bytes` of it
    at most were in huge pages, which are sent whole (0 in the first round, where all is), and
    `amplification` is about how many times as much was sent as was written because of that, None
    where it is not known.
    """

    number: int
    pages: int
    shared_pages: int
    skipped_pages: int
    frozen_s: float
    seconds: float
    wire_bytes: int | None = None
    begun_s: float = 0.0
    dirty_rate: float | None = None
    predicted_downtime_s: float | None = None
    share: float = 1.0
    huge_bytes: int = 0
    amplification: float | None = None

    @property
    def sent_pages(self) -> int:
        """All pages that were sent, private and shared: what the stop rule looks at."""
        return self.pages + self.shared_pages

    @property
    def sent_bytes(self) -> int:
        """The memory that was sent, in bytes."""
        return self.sent_pages * PAGE_SIZE

    def __str__(self) -> str:
        rate = self.sent_bytes / _MIB / self.seconds if self.seconds > 0 else 0.0
        return (
            f"{self.sent_bytes / _MIB:8.1f} MiB  {rate:7.1f} MiB/s  "
            f"frozen {self.frozen_s * 1e3:6.1f} ms  took {self.seconds:6.2f} s"
        )


class Downtime(msgspec.Struct, frozen=True, kw_only=True):
    """The downtime by its parts, in order, in seconds.

    `freeze_s`  until all tasks stood still
    `dump_s`    the final dump: what was dirty, and everything but memory
    `restore_s` held at the source, while `dump_copy_restore` copied and restored
    `kill_s`    until the source's tasks were gone
    `release_s` until the destination let the restored tasks run; 0 if the caller does it later
    """

    freeze_s: float
    dump_s: float
    restore_s: float
    kill_s: float
    release_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The whole downtime."""
        return self.freeze_s + self.dump_s + self.restore_s + self.kill_s + self.release_s

    def parts(self) -> tuple[tuple[str, float], ...]:
        """Each part's name and its seconds, in order."""
        return (
            ("freeze", self.freeze_s),
            ("dump", self.dump_s),
            ("copy and restore", self.restore_s),
            ("kill", self.kill_s),
            ("release", self.release_s),
        )

    def __str__(self) -> str:
        listed = " + ".join(f"{name} {seconds * 1e3:.0f}" for name, seconds in self.parts())
        return f"{self.total_s * 1e3:.0f} ms = {listed}"


class SlowStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step: from round `number` on, the process had `share` of its CPU time."""

    number: int
    share: float


class Slowdown(msgspec.Struct, frozen=True, kw_only=True):
    """How the process was slowed down so that the rounds converge.

    `cpus` is what it used before, in CPUs (1.5: one and a half).  `share` is what it kept of that
    at the end, `seconds` how long it was slow.  `given_back` says that it is so no more: it never
    is on the destination.
    """

    cpus: float
    steps: tuple[SlowStep, ...]
    share: float
    seconds: float
    given_back: bool = True

    def __str__(self) -> str:
        steps = plural(len(self.steps), "step")
        back = "it has all of it again" if self.given_back else "it could not be given back here"
        return (
            f"to {self.share * 100:.0f} % of its CPU time, in {steps}, for "
            f"{duration(self.seconds)}; {back}"
        )


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The huge pages that were split so that the rounds send no more than was written.

    `split_bytes` were in such, and `seconds` is how long it took while the process ran, both in
    all.  Until the end khugepaged waited, on the whole machine; `given_back` says that it does so
    no more.
    """

    split_bytes: int
    seconds: float
    given_back: bool = True

    def __str__(self) -> str:
        back = "goes on as before" if self.given_back else "could not be made to go on"
        return (
            f"{self.split_bytes / _MIB:.1f} MiB of huge pages, in {duration(self.seconds)}; "
            f"khugepaged {back}"
        )


class Drained(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="drained"):
    """All memory is in that a lazy restore left out: `pages` of it were asked for, in `seconds`.

    An event of its own, and a part of the report.
    """

    pages: int
    seconds: float


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """The memory that was left on the source, and came when the process ran on the destination.

    `pages` were left.  `on_demand` were given because somebody waited, `swept` before somebody did;
    both together are more than there were where a link was lost.  `sent_bytes` is what was given,
    before compression.  `needed_s` is how long the source was needed, from when it ran over there.
    """

    pages: int
    on_demand: int
    swept: int
    sent_bytes: int
    needed_s: float

    def __str__(self) -> str:
        return (
            f"{self.sent_bytes / _MIB:.1f} MiB as it ran, {plural(self.on_demand, 'page')} on "
            f"demand, {self.swept} by the sweep; the source was needed for "
            f"{duration(self.needed_s)} after it ran there"
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one finished migration.

    `memory_bytes` is the root process's resident memory at the start.  `reason` is the value of a
    `policy.StopReason`, `explanation` says it in words.  `final.begun_s` is when the cutover began.
    `slowdown` is None where the process was not slowed down, `split` where no huge pages were.
    `lazy` says that the memory came in when the process ran already, `drained` how; it is None if
    that was not waited for.  `followed` is memory that was left on the source until the process
    ran.  What only the command knows has a default: the migration's `id`, both hosts' names and
    their CRIUs, `started_unix` (seconds since the epoch), what preflight found, and the plan.
    """

    version: int = 1
    pid: int
    name: str
    way: Way
    reason: str
    explanation: str
    memory_bytes: int
    rounds: tuple[Round, ...]
    final: Round
    downtime: Downtime
    seconds: float
    slowdown: Slowdown | None = None
    split: Split | None = None
    id: str = ""
    source: str = ""
    destination: str = ""
    source_criu: str = ""
    destination_criu: str = ""
    destination_pid: int | None = None
    started_unix: float = 0.0
    max_downtime_s: float | None = None
    findings: tuple[Finding, ...] = ()
    plan: Plan | None = None
    lazy: bool = False
    drained: Drained | None = None
    followed: Followed | None = None
    warnings: tuple[str, ...] = ()

    @property
    def sent_bytes(self) -> int:
        """The memory that was sent in all, in bytes."""
        followed = self.followed.sent_bytes if self.followed is not None else 0
        return sum(r.sent_bytes for r in self.rounds) + self.final.sent_bytes + followed

    def to_json(self) -> bytes:
        """The report as one JSON object."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> "Report":
        """The report that `to_json` wrote; raises msgspec.ValidationError."""
        return msgspec.json.decode(data, type=cls)

    def __str__(self) -> str:
        lines = [f"{self.name} (PID {self.pid}), {self.way.value}: {self.explanation}"]
        lines += [f"  round {r.number:<2} {r}" for r in self.rounds]
        lines.append(f"  final    {self.final}")
        if self.slowdown is not None:
            lines.append(f"slowed   {self.slowdown}")
        if self.split is not None:
            lines.append(f"split    {self.split}")
        lines.append(f"downtime {self.downtime}")
        if self.followed is not None:
            lines.append(f"followed {self.followed}")
        sent = f"sent {self.sent_bytes / _MIB:.1f} MiB in {self.seconds:.2f} s"
        if self.memory_bytes:
            times = self.sent_bytes / self.memory_bytes
            sent += f", {times:.2f} times the memory's {self.memory_bytes / _MIB:.1f} MiB"
        lines.append(sent)
        return "\n".join(lines)
