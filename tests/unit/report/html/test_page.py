import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from typing import ClassVar
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from phaul.protocol.preflight import Finding, Level, Where
from phaul.report import Downtime, Report, Round, Slowdown, SlowStep, Split, Way
from phaul.report.html import page
from phaul.report.html.timeline import stretches
from tools.sample import PLAN, REPORT, many_rounds

change = msgspec.structs.replace
SECONDS = st.floats(0, 1e7)
RATES = st.none() | st.floats(0, 1e12)
COUNT = st.integers(0, 2**40)
ROUNDS = st.builds(
    Round,
    number=st.integers(0, 100),
    pages=COUNT,
    shared_pages=COUNT,
    skipped_pages=COUNT,
    frozen_s=SECONDS,
    seconds=SECONDS,
    wire_bytes=st.none() | COUNT,
    begun_s=SECONDS,
    dirty_rate=RATES,
    predicted_downtime_s=st.none() | SECONDS,
)
REPORTS = st.builds(
    Report,
    pid=st.integers(1, 2**22),
    name=st.text(),
    way=st.sampled_from(Way),
    reason=st.text(),
    explanation=st.text(),
    memory_bytes=COUNT,
    rounds=st.lists(ROUNDS, max_size=5).map(tuple),
    final=ROUNDS,
    downtime=st.builds(
        Downtime, freeze_s=SECONDS, dump_s=SECONDS, restore_s=SECONDS, kill_s=SECONDS
    ),
    seconds=SECONDS,
    source=st.text(),
    destination=st.text(),
    source_criu=st.text(),
    started_unix=st.floats(-1e12, 1e18),
    max_downtime_s=st.none() | SECONDS,
    warnings=st.lists(st.text(), max_size=2).map(tuple),
    plan=st.none() | st.just(PLAN),
)
EVIL = (
    "</title></style></svg><script>alert(1)</script><img src=x onerror=alert(1)>"
    "\"'&\x00\x1b[2J\ud800"
)


class Tags(HTMLParser):
    VOID: ClassVar = {"meta", "link", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


USUAL = read(page(REPORT)).seen


# Not shrunk: one page is much to look at again and again.
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(REPORTS)
def test_whatever_is_reported_makes_a_sound_page(report: Report) -> None:
    html = page(report)
    html.encode()
    tags = read(html)
    assert tags.seen <= USUAL
    assert not {name for name, _ in tags.attributes if name.startswith("on")}
    for drawing in drawings(html):
        for element in drawing.iter():
            for name in ("x", "y", "width", "height", "cx", "cy", "x1", "y2"):
                assert re.fullmatch(r"-?[\d.]+", element.get(name, "0")), element.attrib


def test_a_round_of_no_time_has_no_bandwidth() -> None:
    # The smallest time there is: bytes in a second come to infinity.
    instant = change(REPORT.rounds[0], seconds=sys.float_info.min)
    tags = read(page(change(REPORT, rounds=(instant,))))
    assert tags.seen <= USUAL


def test_what_comes_from_outside_is_text() -> None:
    finding = Finding(
        check="files", level=Level.NO, where=Where.SOURCE, what=EVIL, remedy=EVIL + "!"
    )
    plan = change(PLAN, reason=EVIL, because=(EVIL,))
    html = page(
        change(
            REPORT,
            name=EVIL,
            source=EVIL,
            destination=EVIL,
            explanation=EVIL,
            id=EVIL,
            source_criu=EVIL,
            findings=(finding,),
            warnings=(EVIL,),
            plan=plan,
        )
    )
    assert "script" not in read(html).seen
    assert "img" not in read(html).seen
    assert html.count("&lt;script&gt;") >= 9
    assert not set("\x00\x1b\ud800") & set(html)


def test_how_it_was_slowed_down() -> None:
    steps = (SlowStep(number=2, share=0.5), SlowStep(number=3, share=0.25))
    slow = Slowdown(cpus=1.5, steps=steps, share=0.25, seconds=4.2)
    assert "It was slowed down to 25 % of its CPU time, in 2 steps" in page(
        change(REPORT, slowdown=slow)
    )
    assert "slowed down" not in page(REPORT)


def test_what_was_split() -> None:
    html = page(change(REPORT, split=Split(split_bytes=64 << 20, seconds=0.15)))
    assert "Split were 64.0 MiB of huge pages, in 150 ms; khugepaged goes on as before." in html
    assert "khugepaged" not in page(REPORT)


def test_nothing_is_asked_of_elsewhere() -> None:
    html = page(REPORT)
    assert not re.findall(r"(?:https?:)?//", html)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src &#x27;none&#x27;" in html


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(REPORT, id="sample"),
        pytest.param(change(REPORT, rounds=()), id="none"),
        pytest.param(change(REPORT, rounds=REPORT.rounds[:1]), id="one"),
        pytest.param(change(REPORT, rounds=many_rounds(60)), id="sixty"),
    ],
)
def test_the_numbers_are_in_a_table_too(report: Report) -> None:
    html = page(report)
    for one in report.rounds:
        assert f'<th scope="row">round {one.number}</th>' in html
    assert '<th scope="row">final dump</th>' in html
    for drawing in drawings(html):
        if drawing.get("role") == "img":
            ids = drawing.get("aria-labelledby", "").split()
            assert [part.get("id") for part in drawing[:2]] == ids
            assert all(part.text for part in drawing[:2])


def test_ids_are_there_once() -> None:
    ids = re.findall(r' id="([^"]+)"', page(REPORT))
    assert ids
    assert len(ids) == len(set(ids))


def test_the_key_figures() -> None:
    html = page(REPORT)
    assert "<dd>284 ms</dd>" in html
    assert "within the 300 ms allowed" in html
    assert "more than the 100 ms allowed" in page(change(REPORT, max_downtime_s=0.1))


def test_the_plan_is_set_against_what_came() -> None:
    html = page(REPORT)
    assert "<td>310 ms</td><td>284 ms</td><td>\u22128 %</td>" in html
    assert ">planned<" not in page(change(REPORT, plan=None))


def test_bars_are_in_scale() -> None:
    timeline = next(d for d in drawings(page(REPORT)) if d[0].get("id") == "timeline-810-title")
    cut, *parts = [
        float(e.get("width", "0")) for e in timeline.iter("rect") if e.get("class") == "real"
    ]
    freeze, dump, restore, kill, _ = parts
    assert restore / dump == pytest.approx(141 / 98, rel=0.01)
    assert kill / freeze == pytest.approx(26 / 11, rel=0.01)
    assert cut == pytest.approx(810 * 0.284 / 32.72, rel=0.01)


def test_the_stretches_follow_each_other() -> None:
    found = stretches(REPORT)
    assert [s.name for s in found] == [
        "before",
        *(f"round {n}" for n in range(5)),
        "cutover",
        "after",
    ]
    for left, right in pairwise(found):
        assert left.begun + left.seconds <= right.begun + 1e-9


def test_beginnings_that_are_not_known_are_said_so() -> None:
    rounds = tuple(change(r, begun_s=0.0) for r in REPORT.rounds)
    report = change(REPORT, rounds=rounds, final=change(REPORT.final, begun_s=0.0))
    assert "not known" in page(report)
    found = stretches(report)
    assert found[1].begun == pytest.approx(found[0].seconds)
