import typing

import msgspec
import pytest

from phaul.plan import Plan
from phaul.report import (
    Amplified,
    Checked,
    Connected,
    Connecting,
    CutoverStarted,
    Downtime,
    Drained,
    Draining,
    Event,
    Failed,
    Finished,
    Held,
    HugePagesSplit,
    Planned,
    PreCopyStopped,
    Report,
    Round,
    RoundFinished,
    RoundProgress,
    RoundStarted,
    Running,
    SlowedDown,
    SourceGone,
    Started,
    Way,
)

ROUND = Round(number=0, pages=1, shared_pages=2, skipped_pages=3, frozen_s=0.1, seconds=0.2)
PLAN = Plan(
    way=Way.PRE_COPY,
    reason="",
    memory_bytes=1,
    shared_bytes=0,
    dirty_rate=None,
    bandwidth=1.0,
    rounds=2,
    seconds=3.0,
    downtime_s=0.1,
    because=("a guess",),
)
REPORT = Report(
    pid=1,
    name="x",
    way=Way.PRE_COPY,
    reason="small",
    explanation="few",
    memory_bytes=2,
    rounds=(ROUND,),
    final=ROUND,
    downtime=Downtime(freeze_s=0, dump_s=0, restore_s=0, kill_s=0),
    seconds=1.0,
)
EVENTS: list[tuple[Event, str]] = [
    (Connecting(id="a1", target="root@b"), "connecting"),
    (Connected(host="b", phaul="0.1", criu="4.2", kernel="6.12"), "connected"),
    (Checked(findings=()), "checked"),
    (Planned(plan=PLAN), "planned"),
    (
        Started(pid=1, name="x", way=Way.PRE_COPY, reason="", memory_bytes=2, criu="4.2"),
        "started",
    ),
    (HugePagesSplit(split_bytes=2, left_bytes=0, seconds=0.1), "huge-pages-split"),
    (RoundStarted(number=0), "round-started"),
    (RoundProgress(number=0, sent_bytes=1, expected_bytes=2), "round-progress"),
    (RoundFinished(round=ROUND), "round-finished"),
    (Amplified(times=99.0, huge_bytes=2, can_split=True), "amplified"),
    (SlowedDown(share=0.4, cpus=1.5), "slowed-down"),
    (PreCopyStopped(reason="small", explanation="few"), "pre-copy-stopped"),
    (CutoverStarted(), "cutover-started"),
    (Held(seconds=0.5), "held"),
    (SourceGone(), "source-gone"),
    (Running(host="b", pid=1), "running"),
    (Draining(pages=7, given=3), "draining"),
    (Drained(pages=7, seconds=0.5), "drained"),
    (Finished(report=REPORT), "finished"),
    (Failed(kind="Cancelled", message="x", fate="y", exit_code=130), "failed"),
]


@pytest.mark.parametrize(("event", "tag"), EVENTS)
def test_go_through_json(event: Event, tag: str) -> None:
    data = msgspec.json.encode(event)
    assert msgspec.json.decode(data)["event"] == tag
    assert msgspec.json.decode(data, type=Event) == event


def test_these_are_all() -> None:
    assert [type(event) for event, _ in EVENTS] == list(typing.get_args(Event))


def test_they_do_not_change() -> None:
    with pytest.raises(AttributeError):
        EVENTS[5][0].number = 5  # type: ignore[misc, union-attr]
