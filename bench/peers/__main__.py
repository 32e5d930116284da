"""phaul beside what people would do instead, side by side in one run.

    python -m bench.peers [native|guest|all] [--turns N] [--quick] [--demanded] [--out DIR]
    python -m bench.peers --from RESULTS.json [--out DIR]      judges and shows a run again
    python -m bench.peers --from RESULTS.json --write          puts it into docs/peers.md

Each contender moves the same process over the same link, and they take turns.  What comes of it:
results.json, plots and a page made from it, and what is printed: the tables, and what phaul has to
come to, met or missed with the ratio.  The exit status is 1 if something is missed.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from bench.peers.demands import DEMANDS, LEAST, judge
from bench.peers.page import page, picture
from bench.peers.results import Results
from bench.peers.scenarios import PLACES, Place
from bench.peers.tables import DOCUMENT, MADE, PICTURES, markdown, replaced

_OUT: Final = Path("build/peers")


def run(place: str, turns: int, *, quick: bool, only_demanded: bool, out: Path) -> Results:
    """Measure; what there is is written after each place, so that nothing measured is lost."""
    from bench.peers.places import measure

    places: tuple[Place, ...] = PLACES if place == "all" else tuple(p for p in PLACES if p == place)
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    results = Results(when=when, places=[])
    for each in places:
        results.places.append(measure(each, turns, quick=quick, only_demanded=only_demanded))
        write(results, out)
    return results


def write(results: Results, out: Path) -> None:
    """Write results.json and the page made from it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_bytes(encoded(results))
    (out / "index.html").write_text(page(results))
    for place in results.places:
        if drawn := picture(place):
            (out / f"scaling-{place.place}.svg").write_text(drawn)


def write_docs(results: Results) -> None:
    """Put the results, their plots and their tables into the docs."""
    MADE.write_bytes(encoded(results))
    for place in results.places:
        if drawn := picture(place):
            (DOCUMENT.parent / PICTURES.format(place.place)).write_text(drawn)
    DOCUMENT.write_text(replaced(DOCUMENT.read_text(), results))


def encoded(results: Results) -> bytes:
    """The results as they are kept."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"


def main() -> int:
    """See the module."""
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", nargs="?", choices=[*PLACES, "all"], default="all")
    parser.add_argument("--turns", type=int, default=LEAST, metavar="N")
    parser.add_argument("--quick", action="store_true", help="few and small: does it work?")
    parser.add_argument("--demanded", action="store_true", help="only what is judged")
    parser.add_argument("--out", type=Path, default=_OUT, metavar="DIR")
    parser.add_argument("--from", dest="given", type=Path, metavar="RESULTS.json")
    parser.add_argument("--write", action="store_true", help="put it into docs/peers.md")
    asked = parser.parse_args()
    if asked.given:
        results = msgspec.json.decode(asked.given.read_bytes(), type=Results)
        write(results, asked.out)
    else:
        results = run(
            asked.place,
            max(asked.turns, 1),
            quick=asked.quick,
            only_demanded=asked.demanded,
            out=asked.out,
        )
    if asked.write:
        write_docs(results)
    print(markdown(results))
    judged = [judge(demand, results) for demand in DEMANDS]
    print("\n".join(map(str, judged)))
    print(f"\nthe page: {asked.out / 'index.html'}")
    return 1 if any(found.verdict == "missed" for found in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
