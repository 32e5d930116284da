"""The results of `bench.peers` as one page without scripts, which requests nothing.  Pure."""

from collections.abc import Sequence
from typing import Final

from bench.peers.contenders import CONTENDERS
from bench.peers.demands import DEMANDS, Judged, judge
from bench.peers.plot import scaling_plot
from bench.peers.results import PlaceResults, Results
from bench.peers.tables import HEADS, NAMES, cells, details, facts_text
from phaul.report.html.head import page_head
from phaul.report.html.markup import Markup, el, join
from phaul.report.html.style import CSS

__all__ = ["page", "picture"]

_WIDE: Final = 810.0
_NARROW: Final = 340.0
_PEERS: Final = """
.hand { --mark: var(--soft); } .original { --mark: var(--dirty); } .phaul { --mark: var(--sent); }
.full { --mark: var(--predicted); } .post { --mark: var(--speed); }
polyline.peer { stroke: var(--mark); } line.peer { stroke: var(--mark); stroke-width: 1.5; }
circle.peer, rect.peer { fill: var(--mark); } text.peer { fill: var(--mark); font-weight: 600; }
"""
_BADGES: Final = {"met": "ok", "missed": "no", "no figure": "warning"}


def page(results: Results) -> str:
    """All of it as HTML."""
    head = page_head("phaul beside its peers", _PEERS)
    header = el(
        "header",
        el("h1", "phaul beside its peers"),
        el(
            "p",
            "Each moved the same process over the same link, in turns. The downtime is what the "
            "process saw: the largest gap of its heartbeat. Every page of its memory was checked "
            "after each move.",
            class_="soft",
        ),
    )
    main = el("main", _demands(results), *map(_place, results.places), _contenders())
    footer = el("footer", f"Measured on {results.when} by phaul's bench.peers.")
    body = el("body", header, main, footer)
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def picture(place: PlaceResults) -> str | None:
    """The scaling plot as an SVG file of its own; None where nothing of it was measured."""
    drawn = scaling_plot(place, _WIDE)
    if drawn is None:
        return None
    style = el("style", Markup(f"{CSS}{_PEERS}text {{ font-family: system-ui, sans-serif; }}\n"))
    name = '<svg xmlns="http://www.w3.org/2000/svg" '
    return drawn.replace("<svg ", name, 1).replace("</svg>", f"{style}</svg>") + "\n"


def _demands(results: Results) -> Markup:
    items = [_demand(judge(demand, results)) for demand in DEMANDS]
    return el("section", el("h2", "What it has to come to"), el("ul", *items, class_="findings"))


def _demand(found: Judged) -> Markup:
    came = f"{found.came}, at most {found.limit}" if found.came else f"at most {found.limit}"
    said = f"{came}; {found.why}" if found.why else f"{came}; medians of {found.turns} turns"
    return el(
        "li",
        el("span", found.verdict, class_=f"badge {_BADGES[found.verdict]}"),
        el("div", el("p", found.demand.what, class_="about"), el("p", said, class_="remedy")),
    )


def _place(place: PlaceResults) -> Markup:
    wide, narrow = (scaling_plot(place, width) for width in (_WIDE, _NARROW))
    left = [f"{one.what} ({one.why})" for one in place.left_out]
    return el(
        "section",
        el("h2", NAMES[place.place]),
        el("p", f"{facts_text(place)}.", class_="soft"),
        join(el("div", wide, class_="wide"), el("div", narrow, class_="narrow")) if wide else None,
        *(
            _table(str(row.scenario), [HEADS, *(cells(*each) for each in row.samples.items())])
            for row in place.rows
        ),
        *(_table(title, shown) for row in place.rows for title, shown in details(row)),
        el("p", f"Left out: {'; '.join(left)}.", class_="soft") if left else None,
    )


def _contenders() -> Markup:
    lines = [
        el(
            "li",
            f"{one.name}: {one.about}",
            f" (phaul migrate {' '.join(one.words)})" if one.words else None,
        )
        for one in CONTENDERS
    ]
    return el("section", el("h2", "Who took part"), el("ul", *lines, class_="because"))


def _table(caption: str, rows: Sequence[Sequence[str]]) -> Markup:
    heads, *rest = rows
    head = join(*(el("th", t, scope="col") if t else el("td") for t in heads))
    lines = (
        el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:]))
        for row in rest
    )
    table = el("table", el("caption", caption), el("thead", el("tr", head)), el("tbody", *lines))
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)
