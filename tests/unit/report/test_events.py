import typing

import msgspec
import pytest

from phaul.report import (
    CutoverStarted,
    Event,
    Held,
    PreCopyStopped,
    Round,
    RoundFinished,
    RoundStarted,
    SourceGone,
    Started,
    Way,
)

ROUND = Round(number=0, pages=1, shared_pages=2, skipped_pages=3, frozen_s=0.1, seconds=0.2)
EVENTS: list[tuple[Event, str]] = [
    (
        Started(pid=1, name="x", way=Way.PRE_COPY, reason="", memory_bytes=2, criu="4.2"),
        "started",
    ),
    (RoundStarted(number=0), "round-started"),
    (RoundFinished(round=ROUND), "round-finished"),
    (PreCopyStopped(reason="small", explanation="few"), "pre-copy-stopped"),
    (CutoverStarted(), "cutover-started"),
    (Held(seconds=0.5), "held"),
    (SourceGone(), "source-gone"),
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
        EVENTS[1][0].number = 5  # type: ignore[misc, union-attr]
