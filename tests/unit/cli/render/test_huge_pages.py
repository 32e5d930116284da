"""Who looks at rounds that grow is told that it is by huge pages, by how much, and what helps."""

import msgspec
import pytest

from phaul.cli.render.look import Look
from phaul.cli.render.narration import Narrator
from phaul.cli.render.result import result_text, round_text
from phaul.report import Amplified, HugePagesSplit, Split
from phaul.report.status import RoundDone
from tools.sample import REPORT

change = msgspec.structs.replace
ROUND = REPORT.rounds[1]


@pytest.mark.parametrize(
    ("huge", "times", "said"),
    [
        (64 << 20, 120.4, "   by huge pages about 120 times what was written"),
        (64 << 20, None, "   up to 64.0 MiB in huge pages"),
        (64 << 20, 1.2, ""),
        (0, None, ""),
    ],
)
def test_a_round(huge: int, times: float | None, said: str) -> None:
    one = change(ROUND, huge_bytes=huge, amplification=times)
    assert round_text(one) == round_text(ROUND) + said
    assert round_text(RoundDone.of(one)) == round_text(one)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            Amplified(times=120.4, huge_bytes=64 << 20, can_split=True),
            "huge      pages of 2 MiB are sent whole: about 120 times what was written; "
            "--split-huge-pages would split them first",
        ),
        (
            Amplified(times=120.4, huge_bytes=64 << 20, can_split=False),
            "huge      pages of 2 MiB are sent whole: about 120 times what was written",
        ),
        (
            HugePagesSplit(split_bytes=64 << 20, left_bytes=0, seconds=0.15),
            "split     64.0 MiB of huge pages in 150 ms; khugepaged waits",
        ),
        (
            HugePagesSplit(split_bytes=62 << 20, left_bytes=2 << 20, seconds=0.15),
            "split     62.0 MiB of huge pages in 150 ms, 2.0 MiB are left; khugepaged waits",
        ),
    ],
)
def test_an_event(event: Amplified | HugePagesSplit, said: str) -> None:
    assert Narrator().lines(event, Look()) == [said]


def test_the_result() -> None:
    split = Split(split_bytes=64 << 20, seconds=0.15)
    said = "split     64.0 MiB of huge pages, in 150 ms; khugepaged "
    assert said + "goes on as before" in result_text(change(REPORT, split=split))
    kept = change(split, given_back=False)
    assert said + "could not be made to go on" in result_text(change(REPORT, split=kept))
    assert "khugepaged" not in result_text(REPORT)
