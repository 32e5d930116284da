import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaul.cli.render.live import bar, live_line
from phaul.cli.render.look import Look, cells
from phaul.report import CutoverStarted, Phase, RoundProgress, SlowedDown, Status
from tools.sample import events

WIDE = Look(width=110, fancy=True)


def after(count: int) -> Status:
    status = Status()
    for event in list(events())[:count]:
        status = status.after(event, 1000.0)
    return status


def test_a_round() -> None:
    done = "\u2501" * 9 + "\u2578" + "\u2500" * 18
    assert live_line(after(9), 1003.0, WIDE) == (
        f"round 0    {done}  33 %   0.98 GiB of 2.94 GiB, 335 MiB/s   3.00 s   Ctrl-C cancels"
    )


def test_a_round_of_a_process_that_is_slowed_down() -> None:
    slow = after(9).after(SlowedDown(share=0.4, cpus=1.0), 1000.0)
    assert ", slowed to 40 %   3.00 s" in live_line(slow, 1003.0, WIDE)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "connecting   to root@beta   Ctrl-C cancels"),
        (2, "checking     this host and beta   Ctrl-C cancels"),
        (5, "preparing   the move to beta   Ctrl-C cancels"),
    ],
)
def test_before_the_rounds(count: int, text: str) -> None:
    assert live_line(after(count), 1000.0, WIDE) == text


def test_the_cutover() -> None:
    status = after(9).after(CutoverStarted(), 1005.0)
    line = live_line(status, 1005.25, WIDE)
    assert line == "cutover    dumping, frozen for 250 ms   5.25 s   Ctrl-C cancels"
    dumping = status.after(RoundProgress(number=5, sent_bytes=50, expected_bytes=100), 1005.0)
    assert "50 %   50 B of 100 B, 50 B/s, frozen for 1.00 s" in live_line(dumping, 1006.0, WIDE)


def test_when_it_is_too_late_to_cancel_none_is_offered() -> None:
    status = after(9)
    for event in list(events())[-5:-1]:
        status = status.after(event, 1005.0)
        if not status.phase.cancellable:
            assert "Ctrl-C" not in live_line(status, 1006.0, WIDE)
    assert status.phase is Phase.RUNNING_THERE


def test_the_end() -> None:
    assert live_line(after(1000), 1006.0, WIDE) == ""


@given(st.integers(1, 75), st.integers(20, 200), st.floats(1000, 1e6))
def test_it_is_one_line(count: int, width: int, now: float) -> None:
    line = live_line(after(count), now, Look(width=width, fancy=True))
    assert cells(line) < width
    assert line.isprintable()


@given(st.floats(-1, 2), st.integers(1, 50), st.booleans())
def test_a_bar_has_its_width(share: float, width: int, fancy: bool) -> None:
    assert cells(bar(share, width, Look(fancy=fancy))) == width


def test_a_bar_without_unicode() -> None:
    assert bar(0.55, 10, Look()) == "#####-...."
