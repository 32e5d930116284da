"""A migration as it could have been: its events and its report, for screenshots and tests.

The numbers are those of a database of 3 GiB that goes over a link of 1 Gbit/s.
"""

from collections.abc import Iterator

from phaul.plan import Plan, Way
from phaul.protocol.preflight import Finding, Level, Where
from phaul.report import (
    Checked,
    Connected,
    Connecting,
    CutoverStarted,
    Downtime,
    Event,
    Finished,
    Held,
    Planned,
    PreCopyStopped,
    Report,
    Round,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
    SourceGone,
    Started,
)

__all__ = ["FINDINGS", "PLAN", "REPORT", "events", "many_rounds"]

_MIB = 1 << 20
_PAGES = 256  # in a MiB

FINDINGS = (
    Finding(check="criu", level=Level.OK, where=Where.SOURCE, what="CRIU 4.2.1, passes its check"),
    Finding(
        check="criu", level=Level.OK, where=Where.DESTINATION, what="CRIU 4.2.1, passes its check"
    ),
    Finding(
        check="features",
        level=Level.OK,
        where=Where.SOURCE,
        what="dirty memory can be tracked",
    ),
    Finding(
        check="cpu",
        level=Level.OK,
        where=Where.DESTINATION,
        what="has all 74 features of the source's CPU",
    ),
    Finding(
        check="clock",
        level=Level.WARNING,
        where=Where.DESTINATION,
        what="is 2.3 s behind the source",
        remedy="start a time service on both hosts: timers of the process will jump",
    ),
    Finding(
        check="files",
        level=Level.OK,
        where=Where.DESTINATION,
        what="41 mapped and 12 open files are the same",
    ),
    Finding(
        check="pids", level=Level.OK, where=Where.DESTINATION, what="PIDs 4242 to 4250 are free"
    ),
    Finding(
        check="memory",
        level=Level.OK,
        where=Where.DESTINATION,
        what="14.2 GiB free, 3.0 GiB are needed",
    ),
    Finding(
        check="thp",
        level=Level.WARNING,
        where=Where.SOURCE,
        what="1.2 GiB of the memory is in transparent huge pages",
        remedy="--thp off, or echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    ),
)
PLAN = Plan(
    way=Way.PRE_COPY,
    reason="the kernel tracks dirty memory",
    memory_bytes=3072 * _MIB,
    shared_bytes=128 * _MIB,
    dirty_rate=9.7 * _MIB,
    bandwidth=112 * _MIB,
    rounds=5,
    seconds=34,
    downtime_s=0.31,
    because=(
        "the dirty rate was measured for 2 s",
        "the bandwidth was measured with 64 MiB",
        "restoring took 140 ms for a process like this one",
    ),
)
_ROUNDS = (
    # MiB, seconds, frozen, dirtied MiB/s, predicted downtime
    (3012.4, 27.31, 0.061, 9.7, 2.74),
    (258.1, 2.42, 0.044, 10.4, 0.52),
    (42.1, 0.41, 0.038, 9.1, 0.36),
    (9.8, 0.13, 0.031, 8.8, 0.29),
    (3.1, 0.09, 0.030, 9.2, 0.27),
)


def _rounds() -> Iterator[Round]:
    begun = 1.84
    for number, (mib, seconds, frozen, dirtied, predicted) in enumerate(_ROUNDS):
        pages = round(mib * _PAGES)
        yield Round(
            number=number,
            pages=pages,
            shared_pages=0,
            skipped_pages=max(0, 3072 * _PAGES - pages),
            frozen_s=frozen,
            seconds=seconds,
            wire_bytes=round(mib * _MIB * 1.002),
            begun_s=begun,
            dirty_rate=dirtied * _MIB,
            predicted_downtime_s=predicted,
        )
        begun += seconds + 0.02


REPORT = Report(
    id="k3v9",
    pid=4242,
    name="postgres",
    way=Way.PRE_COPY,
    reason="small",
    explanation="a cutover now costs about 270 ms, and 300 ms are allowed",
    memory_bytes=3072 * _MIB,
    rounds=tuple(_rounds()),
    final=Round(
        number=5,
        pages=round(130.4 * _PAGES) - 128 * _PAGES,
        shared_pages=128 * _PAGES // 8,
        skipped_pages=3000 * _PAGES,
        frozen_s=0.284,
        seconds=0.214,
        wire_bytes=20 * _MIB,
        begun_s=32.31,
    ),
    downtime=Downtime(freeze_s=0.011, dump_s=0.098, restore_s=0.141, kill_s=0.026, release_s=0.008),
    seconds=32.72,
    source="alpha",
    destination="beta",
    source_criu="4.2.1",
    destination_criu="4.2.1",
    destination_pid=4242,
    started_unix=1_795_531_200.0,
    max_downtime_s=0.3,
    findings=FINDINGS,
    plan=PLAN,
)


def events() -> Iterator[Event]:
    """The events of that migration, in their order."""
    yield Connecting(id=REPORT.id, target="root@beta")
    yield Connected(host="beta", phaul="0.2.0", criu="4.2.1", kernel="6.12.57")
    yield Checked(findings=FINDINGS)
    yield Planned(plan=PLAN)
    yield Started(
        pid=REPORT.pid,
        name=REPORT.name,
        way=REPORT.way,
        reason="",
        memory_bytes=REPORT.memory_bytes,
        criu="4.2.1",
    )
    for done in REPORT.rounds:
        yield RoundStarted(number=done.number)
        for part in range(1, 10):
            yield RoundProgress(
                number=done.number,
                sent_bytes=done.sent_bytes * part // 9,
                expected_bytes=done.sent_bytes,
            )
        yield RoundFinished(round=done)
    yield PreCopyStopped(reason=REPORT.reason, explanation=REPORT.explanation)
    yield CutoverStarted()
    yield Held(seconds=0.109)
    yield SourceGone()
    yield Running(host="beta", pid=REPORT.pid)
    yield Finished(report=REPORT)


def many_rounds(count: int) -> tuple[Round, ...]:
    """`count` rounds of a process that dirties in waves."""
    begun = 0.0
    rounds = []
    for number in range(count):
        mib = 3012.0 if number == 0 else 40.0 + 30.0 * ((number * 7) % 11) / 10
        seconds = mib / 110
        rounds.append(
            Round(
                number=number,
                pages=round(mib * _PAGES),
                shared_pages=0,
                skipped_pages=0,
                frozen_s=0.03,
                seconds=seconds,
                begun_s=begun,
                dirty_rate=(30.0 + (number * 5) % 13) * _MIB,
                predicted_downtime_s=0.2 + mib / 110,
            )
        )
        begun += seconds
    return tuple(rounds)
