"""The preflight: what the tree uses, whether it can be dumped here, and whether that host has it.

Runs on the source, before anything is frozen; the other host's half is done by its agent.

    look_here     the tree (survey), this host, what needs no other host (judge)
    gather        what the other host is to be asked; while it is being connected to
    look_there    both hosts compared, the clocks, the tree's needs against that host
    plan          what it comes to
    require_passed
"""

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from phaul.criu.engine import Engine, Facts
from phaul.criu.facts import host_facts
from phaul.criu.fitness import privileges
from phaul.criu.rpc import CriuOptions
from phaul.criu.workers import examine_anew
from phaul.errors import CriuError, IncompatibleTarget, PhaulError, ProtocolError, Refused
from phaul.facts import Survey
from phaul.network.addresses import IPAddress
from phaul.plan import CHECKS, OnTimeout, Plan, Restoring, Tcp, Wishes
from phaul.plan.compare import ClockOffset, compare, compare_clocks
from phaul.plan.judge import judge
from phaul.plan.options import WantedOptions, options_for
from phaul.plan.predict import make_plan
from phaul.plan.sourcecriu import SourceCriu
from phaul.policy.prediction import Costs, stop_and_copy
from phaul.protocol import messages as m
from phaul.protocol.frames import MAX_CONTROL
from phaul.protocol.preflight import CpuNeed, FileNeed, Finding, ImagesNeed, Level, Need, Where
from phaul.report.findings import in_order
from phaul.source.holding import can_follow, can_hold
from phaul.source.hugeglance import HugeGlance
from phaul.subjects.dirty import DirtyMeter
from phaul.subjects.lock import second_lock
from phaul.subjects.needs import needs
from phaul.subjects.slow import slowable
from phaul.subjects.survey import survey
from phaul.transport.caller import Caller

__all__ = ["Preflight", "turns"]

_ASK_S: Final = 60.0
_MOST_NEEDS: Final = 1024
_MOST_BYTES: Final = MAX_CONTROL // 2
_METADATA: Final = 16 << 20
"""What the images have beside the memory, generously."""
_CLOCK_TRIES: Final = 3
_CLOCK_FINE_S: Final = 0.005
"""An answer that leaves no more uncertain than this is not bettered: the other offsets that matter
are seconds."""
_INCOMPATIBLE: Final = 5


class Preflight:
    """The preflight of one migration of process `pid`; its steps are called in their order.

    Without a process it looks at the two hosts alone.  `findings` are all that was found so far,
    with what the user allows as warnings.
    """

    def __init__(self, engine: Engine, wishes: Wishes, pid: int | None) -> None:
        self._engine = engine
        self._wishes = wishes
        self._pid = pid
        self._found: list[Finding] = []
        self._facts: Facts | None = None
        self._here: m.HostFacts | None = None
        self._restore_rate = 1.0
        self._lazy = False
        self._options = WantedOptions()
        self._wanted: list[Need] | None = None
        self.survey: Survey | None = None
        self.dirty_rate: float | None = None
        self._meter: DirtyMeter | None = None
        self._meter_begun = 0.0
        self._measured_s = 0.0
        self.huge: HugeGlance | None = None
        """What was found of huge pages; None without a process."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the catalogue's order, the source's before the destination's."""
        return tuple(in_order(self._allowed(finding) for finding in self._found))

    @property
    def here(self) -> m.HostFacts:
        """This host; `look_here` was done."""
        assert self._here is not None
        return self._here

    @property
    def pids(self) -> tuple[int, ...]:
        """The PIDs of the tree's processes."""
        found = self.survey
        return tuple(process.pid for process in found.processes) if found else ()

    @property
    def memory_bytes(self) -> int:
        """The tree's resident memory."""
        return self.survey.memory.resident if self.survey else 0

    @property
    def connected_addresses(self) -> frozenset[IPAddress]:
        """The local addresses of the tree's TCP connections."""
        found = self.survey.connections if self.survey else ()
        return frozenset(ip_address(socket.address) for socket in found)

    @property
    def costs(self) -> Costs:
        """What the predictions rest on."""
        memory = self.survey.memory if self.survey else None
        return Costs(
            memory_bytes=memory.resident if memory else 0,
            shared_bytes=memory.shared_anonymous if memory else 0,
            restore_rate=self._restore_rate,
            dirty_rate=self._expected_rate,
            dirty_s=self._measured_s,
            lazy=self._lazy,
        )

    @property
    def _expected_rate(self) -> float | None:
        """What it will dirty a second; not what it does only until huge pages are split."""
        if self.dirty_rate is None or self.huge is None or not self.huge.splits:
            return self.dirty_rate
        return max(self.dirty_rate - self.huge.harmless_rate, 0.0)

    async def look_here(self) -> Facts:
        """Look at this host and the tree; raises CriuUnusable, SubjectError."""
        facts = self._facts = await examine_anew(self._engine)
        self._here = await host_facts(self._engine, facts)
        self._found += privileges(Where.SOURCE)
        if self._pid is not None:
            self.survey = await anyio.to_thread.run_sync(survey, self._pid)
            self._found.append(await anyio.to_thread.run_sync(second_lock, self.pids))
            if self._wishes.may_leave:
                self._found.append(can_hold(self.survey.memory.resident, self._engine.host))
            self.huge = HugeGlance(
                self.survey.memory,
                tracked=facts.mem_track and not self._wishes.post_copy,
                wished=self._wishes.split_huge_pages,
            )
            await self.huge.look()
            if facts.mem_track:
                if self._wishes.on_timeout is OnTimeout.THROTTLE:
                    self._found.append(await anyio.to_thread.run_sync(slowable, self.pids))
                self._meter = DirtyMeter(self._pid)
                await anyio.to_thread.run_sync(self._meter.start)
                self._meter_begun = time.monotonic()
            self._options = options_for(self.survey, self._wishes)
            version = facts.version
            numbers = (version.major, version.minor, version.sublevel)
            self._found += judge(
                self.survey, self._wishes, SourceCriu.on(numbers, self._here.kernel)
            )
        return facts

    async def gather(self) -> None:
        """Gather what the other host is to be asked; without it, `look_there` does."""
        self._wanted = await self._needs()

    async def look_there(self, caller: Caller, welcome: m.Welcome) -> None:
        """Have the other host look; raises what it raises, and PeerError."""
        assert self._here is not None
        self._restore_rate = float(welcome.facts.restore_rate)
        self._lazy = welcome.facts.lazy_pages and self._wishes.restore is not Restoring.FULL
        self._found += compare(self._here, welcome.facts)
        if self._wishes.may_leave:
            self._found.append(can_follow(lazy_pages=welcome.facts.lazy_pages))
        self._found.append(compare_clocks(await _clocks(caller)))
        if self._wanted is None:
            await self.gather()
        for turn in turns(self._wanted or []):
            answer = await caller.call(m.Survey(needs=turn), _ASK_S)
            if not isinstance(answer, m.Surveyed):
                raise ProtocolError("the other side does not say what it found")
            self._found += answer.findings
        self._found = _merged(self._found)

    async def measure(self, least_s: float) -> None:
        """Read how much the tree has dirtied since `look_here`, `least_s` ago at least.

        To be done before the first round: later it would take marks away that CRIU needs.
        """
        meter, self._meter = self._meter, None
        if meter is not None:
            await anyio.sleep(max(self._meter_begun + least_s - time.monotonic(), 0))
            self.dirty_rate = await anyio.to_thread.run_sync(meter.stop)
            self._measured_s = time.monotonic() - self._meter_begun
        if self.huge is not None:
            if meter is not None:
                await self.huge.measure(meter)
            self._found += self.huge.findings()
        if self.dirty_rate is not None:
            self._found.append(
                Finding(
                    check="dirty-rate",
                    level=Level.OK,
                    where=Where.SOURCE,
                    what=f"the tree changes {self.dirty_rate / (1 << 20):.1f} MiB of its memory "
                    "a second",
                )
            )

    @property
    def leaves_all(self) -> bool:
        """Whether all memory is left here, to follow; `look_there` was done.

        Either that was asked for; or there can be no rounds, and without them the downtime asked
        for is not to be had.
        """
        assert self._facts is not None
        return self._wishes.post_copy or (
            self._wishes.on_timeout is OnTimeout.POSTCOPY
            and not self._facts.mem_track
            and stop_and_copy(self.costs) > self._wishes.max_downtime_s
        )

    @property
    def restoring(self) -> Restoring:
        """How the memory is to be restored; what may have to follow needs what restores lazily."""
        return Restoring.LAZY if self._wishes.may_leave else self._wishes.restore

    def plan(self) -> Plan:
        """The plan; `look_there` was done."""
        assert self._facts is not None
        huge = self.huge
        return make_plan(
            self.costs,
            self._wishes,
            tracked=self._facts.mem_track,
            leaves_all=self.leaves_all,
            splits=huge.facts.memory.transparent_huge if huge and huge.splits else None,
            times=huge.facts.times if huge else None,
        )

    def criu_options(self) -> CriuOptions:
        """What the tree needs of the dump."""
        return CriuOptions(
            **{f.name: getattr(self._options, f.name) for f in fields(self._options)}
        )

    def restore_options(self) -> m.RestoreOptions:
        """What the tree needs of the restore."""
        names = {f.name for f in fields(self._options)} & set(m.RestoreOptions.__struct_fields__)
        return m.RestoreOptions(**{name: getattr(self._options, name) for name in names})

    def require_passed(self) -> None:
        """Raise Refused, or IncompatibleTarget, if something would make the migration fail."""
        bad = [finding for finding in self.findings if finding.level is Level.NO]
        if not bad:
            return
        names = sorted({finding.check for finding in bad}, key=list(CHECKS).index)
        incompatible = any(CHECKS[name].exit_code == _INCOMPATIBLE for name in names)
        kind: type[PhaulError] = IncompatibleTarget if incompatible else Refused
        things = "1 thing" if len(bad) == 1 else f"{len(bad)} things"
        error = kind(
            f"preflight found {things} that would make it fail: {', '.join(names)}",
            remedy="mend what is named above, or if you know better allow it: "
            + " ".join(f"--allow {name}" for name in names),
        )
        for finding in bad:
            error.add_note(f"{finding.where.value}: {finding.what}")
        raise error

    async def _needs(self) -> list[Need]:
        wanted: list[Need] = []
        if self.survey is not None:
            wanted += needs(self.survey, tcp_kept=self._wishes.tcp is not Tcp.CLOSE)
            wanted.append(ImagesNeed(size=self.memory_bytes + _METADATA))
        assert self._here is not None
        try:
            image = await _cpu_image(self._engine)
        except (CriuError, OSError) as error:
            what = f"CRIU does not say what this CPU can do: {error}"
            self._found.append(
                Finding(check="cpu", level=Level.WARNING, where=Where.SOURCE, what=what[:4000])
            )
        else:
            wanted.append(CpuNeed(image=image, machine=self._here.machine))
        return wanted

    def _allowed(self, finding: Finding) -> Finding:
        if finding.level is Level.NO and finding.check in self._wishes.allow:
            return msgspec.structs.replace(finding, level=Level.WARNING)
        return finding


def turns(wanted: Sequence[Need]) -> Iterator[tuple[Need, ...]]:
    """The needs in as many messages as it takes.

    What is not a file comes first, and together: space and memory are looked at as one.
    """
    turn: list[Need] = []
    size = 0
    for need in sorted(wanted, key=lambda need: isinstance(need, FileNeed)):
        length = len(msgspec.json.encode(need))
        if turn and (len(turn) == _MOST_NEEDS or size + length > _MOST_BYTES):
            yield tuple(turn)
            turn, size = [], 0
        turn.append(need)
        size += length
    if turn:
        yield tuple(turn)


async def _cpu_image(engine: Engine) -> bytes:
    with tempfile.TemporaryDirectory(prefix="phaul-cpu-") as folder:
        await engine.dump_cpuinfo(Path(folder))
        return (Path(folder) / "cpuinfo.img").read_bytes()


async def _clocks(caller: Caller) -> ClockOffset:
    """The offset of the other host's clock, by the quickest of some answers."""
    offsets = []
    for _ in range(_CLOCK_TRIES):
        asked = time.time_ns()
        answer = await caller.call(m.Clock(), _ASK_S)
        answered = time.time_ns()
        if not isinstance(answer, m.Time):
            raise ProtocolError("the other side does not say what time it is")
        offsets.append(ClockOffset.measured(asked, answer.unix_ns, answered))
        if offsets[-1].uncertainty < _CLOCK_FINE_S:
            break
    return min(offsets, key=lambda offset: offset.uncertainty)


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """Without the ok of a check that found something on the same host, and each only once."""
    found = list(dict.fromkeys(findings))
    bad = {(f.check, f.where) for f in found if f.level is not Level.OK}
    return [f for f in found if f.level is not Level.OK or (f.check, f.where) not in bad]
