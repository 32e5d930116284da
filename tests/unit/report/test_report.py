import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul import Downtime, Report, Round, Way
from phaul.report import Slowdown, SlowStep, Split

COUNT = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e6)
ROUNDS = st.builds(
    Round,
    number=st.integers(0, 100),
    pages=COUNT,
    shared_pages=COUNT,
    skipped_pages=COUNT,
    frozen_s=SECONDS,
    seconds=SECONDS,
    wire_bytes=st.none() | COUNT,
    huge_bytes=COUNT,
    amplification=st.none() | st.floats(1, 512),
)
SHARES = st.floats(0.01, 1)
SLOWDOWNS = st.builds(
    Slowdown,
    cpus=SECONDS,
    steps=st.lists(st.builds(SlowStep, number=COUNT, share=SHARES), max_size=4).map(tuple),
    share=SHARES,
    seconds=SECONDS,
    given_back=st.booleans(),
)
DOWNTIMES = st.builds(Downtime, freeze_s=SECONDS, dump_s=SECONDS, restore_s=SECONDS, kill_s=SECONDS)
REPORTS = st.builds(
    Report,
    pid=st.integers(1, 2**22),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    way=st.sampled_from(Way),
    reason=st.just("small"),
    explanation=st.just("few pages"),
    memory_bytes=COUNT,
    rounds=st.lists(ROUNDS, max_size=4).map(tuple),
    final=ROUNDS,
    downtime=DOWNTIMES,
    seconds=SECONDS,
    slowdown=st.none() | SLOWDOWNS,
    split=st.none()
    | st.builds(Split, split_bytes=COUNT, seconds=SECONDS, given_back=st.booleans()),
)


@given(REPORTS)
def test_goes_round(report: Report) -> None:
    assert Report.from_json(report.to_json()) == report


@given(REPORTS)
def test_the_sums(report: Report) -> None:
    pages = sum(r.pages + r.shared_pages for r in (*report.rounds, report.final))
    assert report.sent_bytes == pages * 4096


@given(REPORTS)
def test_can_be_printed(report: Report) -> None:
    text = str(report)
    assert f"PID {report.pid}" in text
    assert str(report.downtime) in text


def some(memory_bytes: int) -> Report:
    one = Round(
        number=0,
        pages=512,
        shared_pages=0,
        skipped_pages=0,
        frozen_s=0.0042,
        seconds=0.5,
    )
    downtime = Downtime(freeze_s=0.001, dump_s=0.01, restore_s=0.02, kill_s=0.003, release_s=0.004)
    return Report(
        pid=42,
        name="sleep",
        way=Way.PRE_COPY,
        reason="small",
        explanation="the last round had few pages to send (3)",
        memory_bytes=memory_bytes,
        rounds=(one,),
        final=one,
        downtime=downtime,
        seconds=1.5,
    )


def test_the_text() -> None:
    assert str(some(4 << 20)).splitlines() == [
        "sleep (PID 42), pre-copy: the last round had few pages to send (3)",
        "  round 0       2.0 MiB      4.0 MiB/s  frozen    4.2 ms  took   0.50 s",
        "  final         2.0 MiB      4.0 MiB/s  frozen    4.2 ms  took   0.50 s",
        "downtime 38 ms = freeze 1 + dump 10 + copy and restore 20 + kill 3 + release 4",
        "sent 4.0 MiB in 1.50 s, 1.00 times the memory's 4.0 MiB",
    ]


def test_the_text_without_a_known_size() -> None:
    last = str(some(0)).splitlines()[-1]
    assert last.startswith("sent 4.0 MiB in 1.50 s")
    assert "s the memory" not in last


def test_a_round_that_took_no_time() -> None:
    zero = msgspec.structs.replace(some(1).final, seconds=0.0)
    assert "0.0 MiB/s" in str(zero)


@pytest.mark.parametrize("data", [b"{}", b'{"pid": "x"}'])
def test_what_is_no_report(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        Report.from_json(data)
