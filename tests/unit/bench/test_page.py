"""What is made of results: the tables, the plot, the page, the docs."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.__main__ import encoded
from bench.peers.contenders import CONTENDERS
from bench.peers.page import page, picture
from bench.peers.plot import curves, scaling_plot, spaced
from bench.peers.results import LeftOut, PlaceResults, Results, Sample
from bench.peers.scenarios import churning, scaling
from bench.peers.tables import DOCUMENT, MADE, PICTURES, markdown, replaced
from tests.unit.bench.made import place_of, taken

SIZES = (64, 256, 1024)


@pytest.fixture
def place() -> PlaceResults:
    lines = [
        taken(
            scaling(size, "guest"),
            one.name,
            *(
                Sample(
                    gap_s=size * (turn + 1) / 1e4,
                    total_s=9.0,
                    bytes=5 << 20,
                    parts={"freeze": 0.007, "kill": turn / 1e2} if one.words else {},
                )
                for turn in (0, 1)
            ),
        )
        for size in SIZES
        for one in CONTENDERS
    ]
    other = taken(churning(200, "guest"), "phaul", Sample(error="Lost: <script>"), Sample())
    left = LeftOut(what="somebody", why="there is no such contender")
    return place_of("guest", *lines, other, [left])


@pytest.fixture
def results(place: PlaceResults) -> Results:
    return Results(when="2026-01-01", places=[place])


def test_results_are_read_as_they_were_written(results: Results) -> None:
    assert msgspec.json.decode(encoded(results), type=Results) == results


def test_a_curve_for_each_contender_over_all_sizes(place: PlaceResults) -> None:
    found = curves(place)
    wanted = scaling(64, "guest").contenders
    assert [curve.name for curve in found] == [c.name for c in CONTENDERS if c.name in wanted]
    for curve in found:
        assert [size for size, _ in curve.points] == list(SIZES)
        assert curve.points[0][1].median == pytest.approx(64 * 1.5 / 1e4)


def test_the_plot_is_a_drawing_inside_its_frame(place: PlaceResults) -> None:
    drawn = scaling_plot(place, 800)
    assert drawn is not None
    svg = ET.fromstring(drawn)
    width, height = (float(svg.attrib[name]) for name in ("width", "height"))
    dots = [e for e in svg.iter() if e.tag == "circle" or "peer" in e.get("class", "")]
    assert len(list(svg.iter("polyline"))) == len(curves(place))
    for each in dots:
        x, y = each.get("cx") or each.get("x"), each.get("cy") or each.get("y")
        if x and y:
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_nothing_measured_has_no_plot() -> None:
    assert scaling_plot(place_of("native"), 800) is None


@given(st.lists(st.floats(0, 500), max_size=6), st.floats(1, 20))
def test_names_do_not_cover_each_other(places: list[float], least: float) -> None:
    moved = sorted(spaced(places, least))
    assert all(b - a >= least * 0.999 for a, b in pairwise(moved))
    assert all(there >= here for there, here in zip(spaced(places, least), places, strict=True))


def test_the_page_needs_nothing_else(results: Results) -> None:
    made = page(results)
    assert "<script" not in made
    assert "http://" not in made
    assert "https://" not in made
    assert "&lt;b&gt;6.18" in made
    assert "no figure" in made
    assert "1, 1 failed" in made
    assert made.count("<svg") == 2


def test_the_plot_is_a_file_of_its_own(place: PlaceResults) -> None:
    drawn = picture(place)
    assert drawn is not None
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert drawn.count("<style>") == 1
    assert picture(place_of("native")) is None


def test_the_tables_tell_what_failed_and_what_is_missing(results: Results) -> None:
    made = markdown(results)
    assert "1, 1 failed" in made
    assert "Left out: somebody (there is no such contender)." in made
    assert (
        "| | original | phaul | post-copy |\n| --- | --- | --- | --- |\n| freeze | 7.0 ms |" in made
    )
    assert "| kill | 5.0 ms | 5.0 ms |" in made
    assert "| by hand | 2 | 9.6 ms | 9.00 s | 5.0 MiB |" in made


def test_only_what_is_made_is_replaced(results: Results) -> None:
    document = DOCUMENT.read_text()
    filled = replaced(document, results)
    assert markdown(results, PICTURES) in filled
    assert "![Downtime over memory](images/peers-guest.svg)" in filled
    assert replaced(filled, None) == replaced(document, None)
    assert filled.partition("## What came of it")[0] == document.partition("## What came of it")[0]


def test_the_docs_are_up_to_date() -> None:
    results = msgspec.json.decode(MADE.read_bytes(), type=Results) if MADE.exists() else None
    document = DOCUMENT.read_text()
    assert replaced(document, results) == document, "run `python -m bench.peers --from ... --write`"
